"""Checkpoint file of an unfinished refinement."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import Any

import torch

from .._C import Error, InputError


class Checkpoint:
    """Saves the state after each step; the file is replaced atomically."""

    def __init__(self, path: str | os.PathLike, run: dict[str, Any]):
        """run: settings that must be equal for a run to resume."""
        self.path = Path(path)
        self._partial = self.path.with_name(self.path.name + ".partial")
        self._run = run
        try:  # fails before the work, not after
            self._partial.touch()
            self._partial.unlink()
        except OSError as error:
            raise InputError(
                f"{self.path}: cannot be written: {error.strerror}"
            ) from None

    def load(self) -> dict[str, Any] | None:
        """The state of an earlier run; None if there was none."""
        if not self.path.exists():
            return None
        try:
            with zipfile.ZipFile(self.path) as file:
                if (damaged := file.testzip()) is not None:  # torch does not check
                    raise ValueError(damaged)
            saved = torch.load(self.path, map_location="cpu", weights_only=True)
            run, state = saved["run"], saved["state"]
        except Exception as error:
            raise InputError(
                f"{self.path} is not a checkpoint of a refinement "
                f"({type(error).__name__}): remove it to start over"
            ) from None
        differing = [key for key, value in self._run.items() if run.get(key) != value]
        if differing:
            raise InputError(
                f"{self.path} is the checkpoint of another run, which differs in "
                f"{', '.join(differing)}: remove it to start over"
            )
        return state

    def save(self, state: dict[str, Any]) -> None:
        try:
            torch.save({"run": self._run, "state": state}, self._partial)
            os.replace(self._partial, self.path)
        except BaseException as error:  # also Ctrl-C
            self._partial.unlink(missing_ok=True)
            if not isinstance(error, OSError | RuntimeError):
                raise
            raise Error(f"{self.path}: cannot be written: {error}") from None
