"""What merges in memory ask of their inputs, as the engine does of files."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ._C import InputError, MethodInfo, formula_weights
from .fisher_result import FisherResult

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
INTEGERS = (torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


def list_of(values: Any, label: str) -> list:
    """One item per model; a single model or Fisher is a mapping, not a list."""
    if not isinstance(values, Sequence) or isinstance(values, str | nn.Module):
        raise InputError(
            f"{label} must be a list, one item per model, not {type(values).__name__}"
        )
    return list(values)


def number(
    value: Any, name: str, least: float = -math.inf, most: float = math.inf
) -> float:
    """Checked as in a recipe, and refused in the same words (io/yaml_value.cpp)."""
    try:
        found = float(value)
    except (TypeError, ValueError):
        found = math.nan
    if not math.isfinite(found):
        raise InputError(f"{name} must be a number, not {value!r}")
    if not least <= found <= most:
        expected = (
            f"at least {least:g}"
            if most == math.inf
            else f"between {least:g} and {most:g}"
        )
        raise InputError(f"{name} must be {expected}, not {value!r}")
    return found


def positive(value: Any, name: str, most: float = math.inf) -> float:
    found = number(value, name, -math.inf if most == math.inf else 0, most)
    if found <= 0:
        raise InputError(f"{name} must be greater than 0, not {value!r}")
    return found


def state_of(model: nn.Module | Mapping[str, Tensor], label: str) -> dict[str, Tensor]:
    """A module's or state dict's tensors, without their autograd history."""
    state = model.state_dict() if isinstance(model, nn.Module) else model
    if not isinstance(state, Mapping):
        raise InputError(
            f"{label} must be a module or a state dict, not {type(model).__name__}"
        )
    for name, tensor in state.items():
        if not isinstance(tensor, Tensor):
            raise InputError(
                f"{label}: {name!r} is a {type(tensor).__name__}, not a tensor, and "
                "cannot be merged: leave it out"
            )
        if tensor.dtype not in FLOATS + INTEGERS:
            raise InputError(
                f"{label}: tensor {name!r} is {tensor.dtype}, which cannot be merged"
            )
    return {name: tensor.detach() for name, tensor in state.items()}


def check_state(state: dict, reference: dict, label: str, reference_label: str):
    """The same names and shapes; integers stay integers."""
    missing = [name for name in reference if name not in state]
    if missing:
        raise InputError(
            f"{label} lacks tensors of {reference_label}: {_some(missing)}"
        )
    _check_extra(state, reference, label, reference_label)
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


def same_values(a: Tensor, b: Tensor) -> bool:
    return torch.equal(
        a.to(torch.promote_types(a.dtype, b.dtype)),
        b.to(a.device, torch.promote_types(a.dtype, b.dtype)),
    )


def fisher_of(
    fisher: FisherResult | str | os.PathLike,
    model: dict[str, Tensor],
    label: str,
    needs_none: Callable[[str], bool],
) -> FisherResult:
    """A Fisher with the tensors of `model` that are merged, and no other.

    Of tensors in the same memory (tied parameters) one has the Fisher of all.
    """
    if isinstance(fisher, str | os.PathLike):
        fisher = FisherResult.load(fisher)
    if not isinstance(fisher, FisherResult):
        raise InputError(
            f"{label} must be a FisherResult or the path of its file, not "
            f"{type(fisher).__name__}: the numbers of examples are needed too"
        )
    positive(fisher.num_examples, f"{label}: num_examples")
    floats = {name: t for name, t in model.items() if t.dtype in FLOATS}
    _check_extra(fisher, floats, label, "its model")
    for name, f in fisher.items():
        _check_shape(f, floats[name], label, name, "its model")
        if f.dtype not in (torch.float32, torch.float64):
            raise InputError(
                f"{label}: tensor {name!r} is {f.dtype}; a Fisher is float32 or "
                "float64, its small values matter"
            )
    known = {_memory(floats[name]): f for name, f in fisher.items()}
    diagonal = {
        name: fisher[name] if name in fisher else known[_memory(tensor)]
        for name, tensor in floats.items()
        if name in fisher or _memory(tensor) in known
    }
    missing = [n for n in floats if n not in diagonal and not needs_none(n)]
    if missing:
        raise InputError(
            f"{label} lacks tensors of its model: {_some(missing)}; only a tensor that "
            "is the same in all models and the base needs no Fisher, and for ewr all "
            "do: estimate it without freezing, or give all models the base's tensor"
        )
    return dataclasses.replace(fisher, diagonal=diagonal)


def weights_of(
    info: MethodInfo,
    weights: Sequence[float] | float,
    count: int,
    normalize: bool | None,
) -> list[float]:
    """One weight per model, divided by their sum where that is asked for."""
    if not isinstance(weights, Iterable):
        weights = [number(weights, "weights")] * count
    weights = list(weights)
    if len(weights) != count:
        raise InputError(f"weights must be {count}, one per model, not {len(weights)}")
    if normalize and not info.normalizes:
        raise InputError(
            f"the method {info.name} does not normalize weights: its formula does"
        )
    # A negative weight would make denominators vanish.
    least = 0 if info.needs_fishers else -math.inf
    values = [number(w, f"weights[{t}]", least) for t, w in enumerate(weights)]
    normalize = info.normalizes_by_default if normalize is None else normalize
    return formula_weights(info, values, bool(normalize))


def finite(tensor: Tensor, label: str, name: str, least: float = -torch.inf) -> Tensor:
    """The tensor itself, if all of it is finite and at least `least`."""
    if not tensor.isfinite().all() or (tensor < least).any():
        kind = "values" if least < 0 else "Fishers that are not negative"
        raise InputError(
            f"{label}: tensor {name!r} holds what cannot be merged: only finite "
            f"{kind} can"
        )
    return tensor


def _memory(tensor: Tensor) -> tuple:
    """Equal for two tensors that are one."""
    return (
        tensor.device,
        tensor.data_ptr(),
        tensor.dtype,
        tensor.shape,
        tensor.stride(),
    )


def _check_extra(found, expected, label: str, expected_label: str):
    extra = [name for name in found if name not in expected]
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
    shown = ", ".join(repr(name) for name in names[:5])
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more"
