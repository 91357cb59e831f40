"""The executable of the build under test."""

import shutil
import subprocess
from pathlib import Path


def executable() -> str:
    import merganser

    built = Path(merganser.__file__).parents[2] / "bin" / "merganser"
    return str(built) if built.exists() else shutil.which("merganser")


def run(*arguments, check=True):
    """Runs `merganser ARGUMENTS`; with `check`, a failure shows stderr."""
    command = [executable(), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert not check or done.returncode == 0, done.stderr
    return done
