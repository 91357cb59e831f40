"""What merges in memory ask of their inputs, as the engine does of files."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from ._C import InputError, MethodInfo
from .fisher_result import FisherResult

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
INTEGERS = (torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


def state_of(model: nn.Module | Mapping[str, Tensor], label: str) -> dict[str, Tensor]:
    """A module's or state dict's tensors, without their autograd history."""
    state = model.state_dict() if isinstance(model, nn.Module) else model
    if not isinstance(state, Mapping):
        raise InputError(
            f"{label} must be a module or a state dict, not {type(model).__name__}"
        )
    for name, tensor in state.items():
        if tensor.dtype not in FLOATS + INTEGERS:
            raise InputError(
                f"{label}: tensor {name!r} is {tensor.dtype}, which cannot be merged"
            )
    return {name: tensor.detach() for name, tensor in state.items()}


def check_state(state: dict, reference: dict, label: str, reference_label: str):
    """The same names and shapes; integers stay integers."""
    _check_names(state, reference, label, reference_label)
    for name, expected in reference.items():
        _check_shape(state[name], expected, label, name, reference_label)
        kinds = {
            dtype in FLOATS or dtype for dtype in (state[name].dtype, expected.dtype)
        }
        if len(kinds) > 1:
            raise InputError(
                f"{label}: tensor {name!r} is {state[name].dtype}, but "
                f"{expected.dtype} in {reference_label}"
            )


def fisher_of(
    fisher: FisherResult | str | os.PathLike, model: dict, label: str
) -> FisherResult:
    """A Fisher with every tensor of `model` that is merged, and no other."""
    if isinstance(fisher, str | os.PathLike):
        fisher = FisherResult.load(fisher)
    if not isinstance(fisher, FisherResult):
        raise InputError(
            f"{label} must be a FisherResult or the path of its file, not "
            f"{type(fisher).__name__}: the numbers of examples are needed too"
        )
    floats = {name: t for name, t in model.items() if t.dtype in FLOATS}
    _check_names(fisher, floats, label, "its model")
    for name, f in fisher.items():
        _check_shape(f, floats[name], label, name, "its model")
        if f.dtype not in (torch.float32, torch.float64):
            raise InputError(
                f"{label}: tensor {name!r} is {f.dtype}; a Fisher is float32 or "
                "float64, its small values matter"
            )
    return fisher


def weights_of(
    info: MethodInfo,
    weights: Sequence[float] | float,
    count: int,
    normalize: bool | None,
) -> list[float]:
    """One weight per model, divided by their sum where that is asked for."""
    if isinstance(weights, int | float):
        weights = [weights] * count
    if len(weights) != count:
        raise InputError(f"weights must be {count}, one per model, not {len(weights)}")
    if normalize and not info.normalizes:
        raise InputError(f"{info.name} does not normalize weights")
    values = [float(w) for w in weights]
    if info.normalizes_by_default if normalize is None else normalize:
        total = sum(values)
        if total == 0:
            raise InputError("weights add up to 0, so that they cannot be normalized")
        values = [w / total for w in values]
    return values


def finite(tensor: Tensor, label: str, name: str, least: float = -torch.inf) -> Tensor:
    """The tensor itself, if all of it is finite and at least `least`."""
    if not tensor.isfinite().all() or (tensor < least).any():
        kind = "values" if least < 0 else "Fishers that are not negative"
        raise InputError(
            f"{label}: tensor {name!r} holds what cannot be merged: only finite "
            f"{kind} can"
        )
    return tensor


def _check_names(found, expected, label: str, expected_label: str):
    missing = [repr(name) for name in expected if name not in found]
    extra = [repr(name) for name in found if name not in expected]
    if missing:
        raise InputError(f"{label} lacks tensors of {expected_label}: {_some(missing)}")
    if extra:
        raise InputError(
            f"{label} has tensors beyond those of {expected_label}: {_some(extra)}"
        )


def _check_shape(found: Tensor, expected: Tensor, label, name: str, expected_label):
    if found.shape != expected.shape:
        raise InputError(
            f"{label}: tensor {name!r} has shape {list(found.shape)}, but "
            f"{list(expected.shape)} in {expected_label}"
        )


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:5])
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more"
