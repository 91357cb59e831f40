"""Fisher files that are written tensor by tensor."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from torch import Tensor

from .. import _C
from .._C import Error, InputError
from .._merge.states import finite
from ..fisher_result import FisherResult
from ..recipes import inspect
from .safetensors import mapped_tensors, write_tensors


def check_output(out: str | os.PathLike) -> Path:
    """Refuses a file that is not a Fisher, as the executable does."""
    path = Path(out)
    if path.suffix != ".safetensors":
        raise InputError(f"{path}: expected a name that ends in .safetensors")
    if not path.parent.is_dir():
        raise InputError(f"{path.parent}: no such directory")
    if path.exists() and not _is_fisher(path):
        raise InputError(f"{path}: exists and is not a Fisher; choose another name")
    return path


def _is_fisher(path: Path) -> bool:
    try:
        return "format_version" in inspect(path, hashes=False).get("metadata", {})
    except InputError:
        return False


def write_fisher(
    path: Path,
    shapes: Mapping[str, tuple[int, ...]],
    values: Callable[[str], Tensor],
    result: FisherResult,
    extra: Mapping[str, str],
    storage: str,
) -> FisherResult:
    """Writes F with the metadata of `result` and `extra`; returns the file's contents.
    In float32 its values stay on disk until they are used.

    Raises as write_values.
    """
    write_values(
        path, shapes, values, result.metadata(storage).to_dict() | dict(extra), storage
    )
    if storage == "float32":
        result.diagonal = {n: d.read() for n, d in mapped_tensors(path).items()}
    else:
        result.diagonal = FisherResult.load(path).diagonal
    return result


def write_values(
    path: Path,
    shapes: Mapping[str, tuple[int, ...]],
    values: Callable[[str], Tensor],
    metadata: Mapping[str, str],
    storage: str,
) -> None:
    """Writes a Fisher file; asks for each tensor once, in the order of `shapes`.

    Raises InputError for values that are negative, Error for values not finite.
    """

    def stored(name: str) -> dict[str, Tensor]:
        tensor = values(name)
        if not tensor.isfinite().all():
            raise Error(f"the Fisher of {name} is not finite")
        parts = _C.stored_tensors(
            name, finite(tensor, str(path), name, minimum=0), storage
        )
        if not all(part.isfinite().all() for part in parts.values()):
            raise Error(f"the Fisher of {name} is not finite in {storage}")
        return parts

    parts: dict[str, Tensor] = {}
    if storage == "factored":
        # The means of all matrices, few enough for the memory.
        for name in shapes:
            parts |= stored(name)
        shapes = {name: tuple(part.shape) for name, part in parts.items()}
    dtype = "BF16" if storage == "bfloat16" else "F32"
    write_tensors(
        path, shapes, lambda name: (parts or stored(name))[name], metadata, dtype
    )
