"""Modules that torch wraps around a model: torch.compile, DataParallel, DDP.

A wrapper adds a part to the names of the model's tensors (`_orig_mod`, `module`),
which the files of the model lack.
"""

import sys
from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from .._C import InputError

_COMPILED = "_orig_mod"  # torch.compile's attribute for the module inside


def unwrapped(model: nn.Module) -> nn.Module:
    """The model inside of its wrappers; the model itself if it has none."""
    while (part := _added_part(model)) is not None:
        model = model.get_submodule(part)
    return model


def check_whole(model: nn.Module) -> None:
    """Raises InputError for a model whose parameters are sharded over processes."""
    kinds = {type(x).__name__ for x in (*model.parameters(), *model.modules())}
    if kinds & {"DTensor", "FullyShardedDataParallel"}:
        raise InputError(
            "the model's parameters are sharded over processes (FSDP or DTensor): load "
            "the whole model on every process and pass process_group, or read the "
            "optimizer's state with merganser.fisher_from_checkpoint"
        )


def is_fully_sharded(model: nn.Module) -> bool:
    """Returns whether torch's fully_shard (FSDP2) has sharded parts of the model."""
    fsdp: Any = sys.modules.get("torch.distributed.fsdp")
    return fsdp is not None and any(
        isinstance(x, fsdp.FSDPModule) for x in model.modules()
    )


def is_shard(tensor: Tensor) -> bool:
    """Returns whether a tensor is a DTensor, of which this process may have a part."""
    return hasattr(tensor, "full_tensor")


def whole(tensor: Any) -> Tensor:
    """The tensor itself; a DTensor's, gathered from all processes."""
    return tensor.full_tensor() if is_shard(tensor) else tensor


def part_of(tensor: Any) -> Tensor:
    """The tensor itself; the part of a DTensor that this process has."""
    return tensor.to_local() if is_shard(tensor) else tensor


def parameters_inside(
    model: nn.Module, remove_duplicate: bool = True
) -> Iterator[tuple[str, nn.Parameter]]:
    """model.named_parameters(), named as in the model without wrappers."""
    for name, p in model.named_parameters(remove_duplicate=remove_duplicate):
        yield name_inside(model, name), p


def state_inside(model: nn.Module) -> dict[str, Tensor]:
    """model.state_dict(), named as in the model without wrappers."""
    return {name_inside(model, name): x for name, x in model.state_dict().items()}


def name_inside(model: nn.Module, name: str) -> str:
    """The name of a tensor of `model`, without the parts of wrappers at any depth."""
    module: nn.Module | None = model
    kept = []
    for part in name.split("."):
        if module is None or part != _added_part(module):
            kept.append(part)
        module = None if module is None else module._modules.get(part)
    return ".".join(kept)


def names_inside(names: list[str]) -> list[str]:
    """The same for names without their model: those of a DataParallel model all begin
    with `module.`."""
    parts = [[p for p in name.split(".") if p != _COMPILED] for name in names]
    while parts and all(p[0] == "module" and len(p) > 1 for p in parts):
        parts = [p[1:] for p in parts]
    return [".".join(p) for p in parts]


def _added_part(module: nn.Module) -> str | None:
    """The part of the names that a wrapper adds; None: not a wrapper."""
    if _COMPILED in module._modules:
        return _COMPILED
    is_parallel = isinstance(module, DataParallel | DistributedDataParallel)
    return "module" if is_parallel else None
