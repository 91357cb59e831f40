"""Checks of state dicts to merge: dtypes, names, shapes and values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from .._C import InputError
from .._common.wrappers import is_shard, state_inside

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
INTEGERS = (torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)

State = dict[str, Tensor]


def state_of(model: nn.Module | Mapping[str, Tensor], label: str) -> State:
    """The tensors of a module or state dict, detached; names without wrappers."""
    state = state_inside(model) if isinstance(model, nn.Module) else model
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
        if is_shard(tensor):
            raise InputError(
                f"{label}: tensor {name!r} is sharded over processes: gather the whole "
                "state dict, such as with get_model_state_dict of torch.distributed"
            )
        if tensor.dtype not in FLOATS + INTEGERS:
            raise InputError(
                f"{label}: tensor {name!r} is {tensor.dtype}, which cannot be merged"
            )
    return {name: tensor.detach() for name, tensor in state.items()}


def check_state(state: State, reference: State, label: str, reference_label: str):
    """Checks for the reference's names, shapes and kinds of dtype."""
    missing = [name for name in reference if name not in state]
    if missing:
        raise InputError(f"{label} lacks tensors of {reference_label}: {some(missing)}")
    check_extra(state, reference, label, reference_label)
    for name, expected in reference.items():
        check_shape(state[name], expected.shape, label, name, reference_label)
        kinds = {
            dtype in FLOATS or dtype for dtype in (state[name].dtype, expected.dtype)
        }
        if len(kinds) > 1:
            raise InputError(
                f"{label}: tensor {name!r} is {state[name].dtype}, but "
                f"{expected.dtype} in {reference_label}"
            )


def check_extra(found: Iterable[str], expected, label: str, expected_label: str):
    extra = [name for name in found if name not in expected]
    if extra:
        raise InputError(
            f"{label} has tensors that {expected_label} lacks: {some(extra)}"
        )


def check_shape(found: Tensor, expected, label: str, name: str, expected_label: str):
    if found.shape != torch.Size(expected):
        raise InputError(
            f"{label}: tensor {name!r} has shape {list(found.shape)}, but "
            f"{list(expected)} in {expected_label}"
        )


def same_values(a: Tensor, b: Tensor) -> bool:
    wide = torch.promote_types(a.dtype, b.dtype)
    return torch.equal(a.to(wide), b.to(a.device, wide))


def finite(
    tensor: Tensor, label: str, name: str, minimum: float = -torch.inf
) -> Tensor:
    """Returns the tensor; raises InputError unless it is finite and >= minimum."""
    if not tensor.isfinite().all() or (tensor < minimum).any():
        kind = "finite" if minimum < 0 else "finite and not negative"
        raise InputError(f"{label}: the values of tensor {name!r} must be {kind}")
    return tensor


def are_equal(a: Tensor, b: Tensor) -> bool:
    """Returns whether two tensors are equal; most differ in their first values."""
    if (a.shape, a.dtype, a.device) != (b.shape, b.dtype, b.device):
        return False
    first = a.reshape(-1)[:64], b.reshape(-1)[:64]
    return torch.equal(*first) and torch.equal(a, b)


def are_tied(a: Tensor, b: Tensor) -> bool:
    """Returns whether two tensors are equal, by more than the value of a new bias."""
    return are_equal(a, b) and bool((a != a.flatten()[:1]).any())


def memory_of(tensor: Tensor) -> tuple:
    """A key that is equal for tied tensors."""
    return (
        tensor.device,
        tensor.data_ptr(),
        tensor.dtype,
        tensor.shape,
        tensor.stride(),
    )


def some(names: list[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:5])
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more"
