"""State dicts in checkpoints of safetensors."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from .. import _C
from .._C import InputError
from .states import State, some

DTYPES = {  # by their names in a safetensors header
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "I16": torch.int16,
    "I32": torch.int32,
    "I64": torch.int64,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
}
_NAMES = {dtype: name for name, dtype in DTYPES.items()}


def read_state(path: str | os.PathLike) -> State:
    """The tensors of a .safetensors file or a model directory."""
    raw, _ = _C.read_checkpoint(path)
    unknown = [name for name, dtype, _, _ in raw if dtype not in DTYPES]
    if unknown:
        raise InputError(f"{path}: tensors of an unsupported dtype: {some(unknown)}")
    return {name: decode(dtype, shape, data) for name, dtype, shape, data in raw}


def decode(dtype: str, shape: Sequence[int], data: bytes) -> Tensor:
    """A tensor from a file's dtype, shape and bytes."""
    if not data:
        return torch.empty(list(shape), dtype=DTYPES[dtype])
    # A bytearray, as torch warns of memory that is not writable.
    return torch.frombuffer(bytearray(data), dtype=DTYPES[dtype]).view(list(shape))


def check_not_sharded(directory: Path) -> None:
    if (directory / "model.safetensors.index.json").exists():
        raise InputError(
            f"{directory} has a sharded model; choose another output directory"
        )


def write_state(directory: Path, state: State) -> None:
    """Writes model.safetensors, atomically."""
    tensors = []
    for name, tensor in state.items():
        flat = tensor.cpu().contiguous().flatten()
        data = flat.view(torch.uint8).numpy().tobytes()
        tensors.append((name, _NAMES[tensor.dtype], list(tensor.shape), data))
    _C.write_safetensors(directory / "model.safetensors", tensors, {"format": "pt"})
