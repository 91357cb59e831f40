"""Runs the executable that scripts/demo and scripts/test build."""

import subprocess
from pathlib import Path

EXECUTABLE = Path(__file__).parents[1] / "build" / "cpu" / "bin" / "merganser"


def run(*words):
    """The output of `merganser WORDS`."""
    command = [EXECUTABLE, *map(str, words)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
