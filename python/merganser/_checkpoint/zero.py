"""Checkpoints of DeepSpeed: the shards of ZeRO-1, 2 and 3, and universal ones.

Layout: deepspeed/utils/zero_to_fp32.py and deepspeed/checkpoint/ds_to_universal.py.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .._C import InputError
from .loading import Inert, classes_in, load
from .moments import read_states
from .state import Deferred, OptimizerState

SHARDS = "*_optim_states.pt"
_MODEL = "*_model_states.pt"
_AVERAGES = ("exp_avg_sq", "exp_avg")


def find_zero(checkpoint: Path) -> Path | None:
    """The directory of the shards or of the universal checkpoint; None: no such one."""
    for tag in ("latest_universal", "latest"):
        file = checkpoint / tag
        if file.is_file():
            step = checkpoint / file.read_text(encoding="utf-8").strip()
            if _is_zero(step):
                return step
    steps = [checkpoint, *checkpoint.glob("global_step*")]
    return max(filter(_is_zero, steps), key=_number, default=None)


def read_zero(directory: Path) -> OptimizerState:
    if (directory / "zero").is_dir():
        return _read_universal(directory)
    paths = sorted(directory.glob(SHARDS), key=_number)
    if any(re.search(r"mp_rank_(?!00)", path.name) for path in paths):
        raise InputError(
            f"{directory}: a model in tensor-parallel parts; convert it with "
            "DeepSpeed's ds_to_universal.py"
        )
    shards = [_load(path)["optimizer_state_dict"] for path in paths]
    count = shards[0].get("partition_count", len(shards))
    count = max(count) if isinstance(count, Sequence) else count
    if count != len(shards):
        raise InputError(
            f"{directory}: expected {count} files {SHARDS}, got {len(shards)}"
        )
    stage = _number_of(shards[0].get("zero_stage", 1))
    key = "optimizer_state_dict" if stage == 3 else "base_optimizer_state"
    if not all(isinstance(shard.get(key), Mapping) for shard in shards):
        raise InputError(
            f"{directory}: elastic checkpoints are not supported; convert it with "
            "DeepSpeed's ds_to_universal.py"
        )
    parts = [shard[key] for shard in shards]
    states: dict[str, dict[str, Any]] = {}
    groups = _shapes(directory, stage)
    if any(set(part["state"]) != set(range(len(groups))) for part in parts):
        raise InputError(
            f"{directory}: expected a state for each of {len(groups)} groups of "
            "parameters, got other ones, as of sub-groups (sub_group_size); convert it "
            "with DeepSpeed's ds_to_universal.py"
        )
    for group, shapes in enumerate(groups):
        of_group = [part["state"][group] for part in parts]
        begin = 0
        for name, shape in shapes.items():
            values = math.prod(shape)
            size = -(-values // count) if stage == 3 else values
            states[name] = {
                key: Deferred(
                    tuple(shape),
                    functools.partial(
                        _gather,
                        f"{directory}: {name}",
                        [state[key] for state in of_group],
                        begin,
                        tuple(shape),
                        stage == 3,
                    ),
                )
                if isinstance(value, Tensor) and value.dim() > 0
                else value
                for key, value in of_group[0].items()
            }
            begin += size
    return read_states(directory, states, None, parts[0]["param_groups"])


def _gather(
    label: str, parts: Sequence[Tensor], begin: int, shape: tuple, everywhere: bool
) -> Tensor:
    """A parameter's values in the parts of the processes: one range of their
    concatenation, or, with `everywhere`, the same range of each."""
    values = math.prod(shape)
    if everywhere:
        size = -(-values // len(parts))
        pieces = [part[begin : begin + size] for part in parts]
    else:
        pieces, offset = [], 0
        for part in parts:
            low, high = begin - offset, begin + values - offset
            pieces.append(part[max(low, 0) : max(high, 0)])
            offset += part.numel()
    whole = torch.cat(pieces)[:values]
    if whole.numel() != values:
        raise InputError(
            f"{label}: expected {values} values in {len(parts)} shards, got "
            f"{whole.numel()}"
        )
    return whole.view(shape)


def _shapes(directory: Path, stage: int) -> list[Mapping[str, Sequence[int]]]:
    """Names and shapes of each group's parameters, in the order of their values."""
    found = sorted(directory.glob(_MODEL), key=_number)
    if not found:
        raise InputError(f"{directory}: expected a file {_MODEL} with the shapes")
    shapes = _load(found[0]).get("param_shapes")
    if not shapes:
        raise InputError(f"{found[0]}: expected the key param_shapes")
    return list(shapes) if isinstance(shapes, Sequence) else [shapes]


def _read_universal(directory: Path) -> OptimizerState:
    root = directory / "zero"
    states: dict[str, dict[str, Any]] = {}
    for path in sorted(root.rglob("exp_avg_sq.pt")):
        name = path.parent.relative_to(root).as_posix()
        states[name] = {
            key: _parameter(path.with_name(f"{key}.pt"))
            for key in _AVERAGES
            if path.with_name(f"{key}.pt").exists()
        }
        step = path.with_name("step.pt")
        if step.exists():
            states[name]["step"] = _parameter(step)
    if not states:
        raise InputError(
            f"{root}: expected a directory per parameter with exp_avg_sq.pt, which "
            "Adam keeps"
        )
    common = root / "optimizer_state.pt"
    found = _load(common) if common.exists() else {}
    inner = found.get("base_optimizer_state", found)
    return read_states(directory, states, None, inner.get("param_groups", []))


def _parameter(path: Path) -> Any:
    value = _load(path)
    return value["param"] if isinstance(value, Mapping) else value


def _load(path: Path) -> Any:
    return load(path, inert=classes_in(path, "deepspeed"))


def _is_zero(directory: Path) -> bool:
    return (directory / "zero").is_dir() or any(directory.glob(SHARDS))


def _number(path: Path) -> list[int]:
    return [int(digits) for digits in re.findall(r"\d+", path.name)]


def _number_of(stage: Any) -> int:
    return int(stage.arguments[0]) if isinstance(stage, Inert) else int(stage)
