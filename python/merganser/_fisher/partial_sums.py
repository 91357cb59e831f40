"""Checkpoint file with the sums of an unfinished Fisher."""

import hashlib
import os
import time
import zipfile
from pathlib import Path

import torch
from torch import Tensor

from .._C import Error, InputError
from .batches import Batch
from .model_state import update_hash

SECONDS = 60.0  # between two writes


class PartialSums:
    """Saves sums regularly, and resumes from those of an earlier run.

    A resumed run reads the earlier run's data again and compares a running hash, so
    that other data, or data in another order, are refused instead of counted twice.
    The file is replaced atomically.
    """

    def __init__(self, path: str | os.PathLike, sums: dict[str, Tensor], run: dict):
        """run: settings that must be equal for the sums to be compatible."""
        self._path = Path(path)
        self._partial = self._path.with_name(self._path.name + ".partial")
        self._sums = sums
        self._run = run
        self._hash = hashlib.sha256()
        self._seen = 0
        self._goal = 0  # examples that the earlier run has seen
        self._goal_hash = ""
        self._written = time.monotonic()
        if self._path.exists():
            self._load()
        try:  # fails before the work, not after
            self._partial.touch()
            self._partial.unlink()
        except OSError as error:
            raise InputError(
                f"{self._path}: cannot be written: {error.strerror}"
            ) from None

    def _load(self) -> None:
        try:
            with zipfile.ZipFile(self._path) as file:
                if (damaged := file.testzip()) is not None:  # torch does not check
                    raise ValueError(damaged)
            saved = torch.load(self._path, map_location="cpu", weights_only=True)
            run, sums = saved["run"], saved["sums"]
            self._goal, self._goal_hash = saved["seen"], saved["hash"]
        except Exception as error:
            raise InputError(
                f"{self._path} is not a checkpoint of a Fisher ({type(error).__name__})"
                ": remove it to start over"
            ) from None
        differing = [key for key, value in self._run.items() if run.get(key) != value]
        shapes = {name: s.shape for name, s in self._sums.items()}
        if {name: s.shape for name, s in sums.items()} != shapes:
            differing.append("the trainable parameters")
        if differing:
            raise InputError(
                f"{self._path} is the checkpoint of another run, which differs in "
                f"{', '.join(differing)}: remove it to start over"
            )
        for name, total in self._sums.items():
            total.copy_(sums[name])

    def has(self, batch: Batch) -> bool:
        """Returns whether the sums include a batch. Call once per batch, in order."""
        resuming = self._seen < self._goal
        update_hash(self._hash, batch)
        self._seen += batch.size
        if resuming and self._seen >= self._goal:
            if self._seen > self._goal or self._hash.hexdigest() != self._goal_hash:
                raise InputError(
                    f"{self._path} was written for other data, or for another order or "
                    "batch size: turn shuffling off, or remove the file to start over"
                )
        return resuming

    def write(self) -> None:
        """Writes the sums if SECONDS have passed since the last write."""
        if self._seen > self._goal and time.monotonic() - self._written >= SECONDS:
            self._save()

    def finish(self) -> None:
        """Writes the final sums."""
        if self._seen < self._goal:
            raise InputError(
                f"{self._path} has the sums of {self._goal} examples, but the data "
                f"have only {self._seen}: remove it to start over"
            )
        if self._seen > self._goal:
            self._save()

    def _save(self) -> None:
        saved = {
            "run": self._run,
            "sums": self._sums,
            "seen": self._seen,
            "hash": self._hash.hexdigest(),
        }
        try:
            torch.save(saved, self._partial)
            os.replace(self._partial, self._path)
        except (OSError, RuntimeError) as error:
            raise Error(f"{self._path}: cannot be written: {error}") from None
        finally:
            self._partial.unlink(missing_ok=True)  # also after Ctrl-C: never read
        self._written = time.monotonic()
