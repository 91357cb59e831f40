"""Reading of other programs' PyTorch files: tensors, numbers and texts, never code."""

from __future__ import annotations

import io
import pickle
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from .._C import InputError

# Errors of torch.load for files that end early or are of another kind.
DAMAGE = (RuntimeError, EOFError, OSError, ValueError, KeyError, IndexError, TypeError)


class Inert:
    """Stands for an object whose class is not needed; has its arguments, and its
    attributes, or as `state` what is pickled in their place."""

    def __init__(self, *arguments):
        self.arguments = arguments

    def __setstate__(self, state):
        if isinstance(state, dict):
            vars(self).update(state)
        else:
            self.state = state


def load(
    source: Path | io.BytesIO, label: Any = None, inert: Sequence[str] = ()
) -> Any:
    """torch.load(weights_only=True); a file's tensors stay on disk until they are used.

    label: shown instead of the path. inert: names of classes to replace by Inert.
    Raises InputError for objects of other classes, which are not created, and for
    damaged files.
    """
    label = label or source
    mapped = isinstance(source, Path) and zipfile.is_zipfile(source)
    try:
        with torch.serialization.safe_globals([(Inert, name) for name in inert]):
            return torch.load(
                source, map_location="cpu", weights_only=True, mmap=mapped
            )
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL (\S+)", str(error))
        if found is None:
            raise damaged(label) from None
        raise InputError(
            f"{label}: contains {found[1]}; expected tensors, numbers and texts, and "
            "nothing else is read, as it could run code"
        ) from None
    except DAMAGE:
        raise damaged(label) from None


def classes_in(path: Path, package: str) -> list[str]:
    """Names of the classes of `package` whose objects a file has."""
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except (*DAMAGE, pickle.UnpicklingError):
        raise damaged(path) from None
    return [name for name in names if name.startswith(f"{package}.")]


def damaged(label: Any) -> InputError:
    return InputError(
        f"{label}: damaged or incomplete; expected a file that torch.save wrote"
    )
