"""Which file or directory of a checkpoint has the optimizer's state."""

from __future__ import annotations

import json
from pathlib import Path

from .._C import InputError
from .distributed import METADATA, read_distributed
from .named import SQUARES, read_named
from .state import OptimizerState
from .torch_file import read_torch_file
from .zero import find_zero, read_zero

_TORCH_FILES = ("optimizer.pt", "optimizer.bin")


def read_optimizer(checkpoint: Path) -> OptimizerState:
    """The optimizer's state in a checkpoint's directory or in a file.

    Raises InputError with what was expected if there is none.
    """
    if checkpoint.is_file():
        is_named = checkpoint.suffix == ".safetensors"
        return read_named(checkpoint) if is_named else read_torch_file(checkpoint)
    if not checkpoint.is_dir():
        raise InputError(f"{checkpoint}: no such file or directory")
    for name in _TORCH_FILES:
        if (checkpoint / name).is_file():
            return read_torch_file(checkpoint / name)
    for directory in (checkpoint, *sorted(checkpoint.glob("optimizer*"))):
        if (directory / METADATA).is_file():
            return read_distributed(directory)
    zero = find_zero(checkpoint)
    if zero is not None:
        return read_zero(zero)
    if (checkpoint / SQUARES).is_file():
        return read_named(checkpoint / SQUARES)
    has_model = any(checkpoint.glob("*model*"))
    raise InputError(
        f"{checkpoint}: no optimizer state"
        + (", as after save_only_model" if has_model else "")
        + "; expected optimizer.pt, optimizer.bin, a torch.distributed.checkpoint, "
        f"DeepSpeed's shards or {SQUARES}"
    )


def directory_of(checkpoint: Path) -> Path:
    return checkpoint if checkpoint.is_dir() else checkpoint.parent


def read_trainer_state(checkpoint: Path) -> tuple[Path, dict]:
    """trainer_state.json of a Trainer's checkpoint: its path and contents, {} if there
    is none."""
    path = directory_of(checkpoint) / "trainer_state.json"
    if not path.is_file():
        return path, {}
    try:
        contents = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        contents = None
    if not isinstance(contents, dict):
        raise InputError(f"{path}: damaged; expected a JSON object")
    return path, contents
