"""Arguments of the commands that run in Python."""

from __future__ import annotations

import argparse
import sys
from typing import NoReturn

from .. import _build
from .._C import Error, InputError


class Parser(argparse.ArgumentParser):
    """With errors of one sentence, as those of the other commands."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"merganser: {message} (see {self.prog} --help)\n")

    def add_common(self, *, quiet: str) -> None:
        """Adds the options of every command; `quiet` says what the command omits."""
        add = self.add_argument
        add("--json", action="store_true", help="print the result as JSON")
        add("-q", "--quiet", action="store_true", help=quiet)
        add("-v", "--verbose", action="store_true", help="no effect")
        add("--version", action="version", version=f"merganser {_build.VERSION}")


def failed(error: Error) -> int:
    """Prints an error as all commands do, and returns the exit code."""
    print(f"merganser: {error}", file=sys.stderr)
    return 2 if isinstance(error, InputError) else 1
