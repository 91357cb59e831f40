"""Safetensors files tensor by tensor, without the whole file in memory."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from .._C import Error, InputError
from .._merge.checkpoint import DTYPES
from ..recipes import inspect
from .state import Deferred

_LENGTH_BYTES = 8  # of the header's length, at the start of a file


def mapped_tensors(path: Path) -> dict[str, Deferred]:
    """The tensors of a file, read from the disk as they are used."""
    inspect(path, hashes=False)  # checks the header
    with path.open("rb") as file:
        length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
        header = json.loads(file.read(length))
    size = path.stat().st_size
    data = torch.from_file(str(path), shared=False, size=size, dtype=torch.uint8)
    data = data[_LENGTH_BYTES + length :]
    header.pop("__metadata__", None)

    def tensor(dtype: str, shape: list[int], begin: int, end: int) -> Tensor:
        if dtype not in DTYPES:
            raise InputError(f"{path}: tensors of the unsupported dtype {dtype}")
        part = data[begin:end]
        if part.storage_offset() % DTYPES[dtype].itemsize:
            part = part.clone()
        return part.view(DTYPES[dtype]).view(shape)

    return {
        name: Deferred(
            tuple(entry["shape"]),
            lambda e=entry: tensor(e["dtype"], e["shape"], *e["data_offsets"]),
        )
        for name, entry in header.items()
    }


def write_tensors(
    path: Path,
    shapes: Mapping[str, tuple[int, ...]],
    values: Callable[[str], Tensor],
    metadata: Mapping[str, str],
    dtype: str = "F32",
) -> None:
    """Writes tensors of one dtype in the order of `shapes`, atomically.

    values: returns a tensor of that shape; one is in memory at a time.
    """
    header: dict = {"__metadata__": dict(metadata)}
    end = 0
    for name, shape in shapes.items():
        size = DTYPES[dtype].itemsize * torch.Size(shape).numel()
        begin, end = end, end + size
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % _LENGTH_BYTES)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(len(text).to_bytes(_LENGTH_BYTES, "little") + text)
            for name in shapes:
                tensor = values(name).to(DTYPES[dtype]).contiguous()
                file.write(tensor.flatten().view(torch.uint8).numpy().data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise Error(f"{path}: cannot be written: {error.strerror}") from None
    finally:
        temporary.unlink(missing_ok=True)
