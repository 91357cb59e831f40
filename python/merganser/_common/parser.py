"""Arguments of the commands that run in Python."""

from __future__ import annotations

import argparse
from typing import NoReturn

from .. import _build


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
