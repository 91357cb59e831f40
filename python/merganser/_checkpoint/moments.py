"""The moving averages in one parameter's state, by optimizer."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .._C import InputError
from .state import Decay, Deferred, Exponential, Growing, Moments, OptimizerState

ADAM, ADAFACTOR, ADAM_8BIT = "Adam", "Adafactor", "8-bit Adam"
# Settings of a group that the moving averages depend on.
SETTINGS = ("betas", "decay_rate", "beta2_decay", "beta1")
# bitsandbytes keeps these under a key of their own when FSDP saves.
_BNB_PACKED = "__bnb_optimizer_quant_state__"
_BNB_BLOCKS = (256, 2048, 4096, 1024, 512, 128, 64)
_NOTES = {
    ADAFACTOR: "Adafactor keeps the means of the squares' rows and columns: matrices "
    "are their product",
    ADAM_8BIT: "the squares were stored in 8 bits, with errors of some percent",
}


def read_states(
    path: Path,
    states: Mapping[Any, Mapping[str, Any]],
    groups: list[list] | None,
    settings: Sequence[Mapping[str, Any]],
) -> OptimizerState:
    """The state of an optimizer as torch's `state_dict` has it.

    states: by parameter, with tensors or Deferred ones. groups: the parameters of each
    group; None: unknown. settings: the groups' values.
    Raises InputError for an optimizer that keeps no squares of gradients.
    """
    present = {key: unpacked(state) for key, state in states.items() if state}
    shared = common(path, settings)
    kind = find_kind(path, present.values(), shared)
    read_moments = _READERS[kind]
    steps = {int(s["step"]) for s in present.values() if s.get("step") is not None}
    if len(steps) > 1:
        raise InputError(
            f"{path}: parameters have taken {min(steps)} to {max(steps)} steps; "
            "expected one number, as their averages are of other examples"
        )
    decay, beta1 = decays(path, kind, shared)
    return OptimizerState(
        path=path,
        optimizer=kind,
        moments={
            key: read_moments(f"{path}: state {key}", s) for key, s in present.items()
        },
        groups=groups,
        step=steps.pop() if steps else shared.get("step"),
        decay=decay,
        beta1=beta1,
        notes=[_NOTES[kind]] if kind in _NOTES else [],
    )


def unpacked(state: Mapping) -> Mapping:
    return {**state, **state.get(_BNB_PACKED, {})}


def common(path: Path, groups: Sequence[Mapping]) -> Mapping:
    """The settings that all groups share."""
    for key in SETTINGS:
        values = {str(group.get(key)) for group in groups}
        if len(values) > 1:
            raise InputError(
                f"{path}: parameter groups differ in {key}: {', '.join(sorted(values))}"
            )
    for group in groups:
        if group.get("decoupled_weight_decay") is False and group.get("weight_decay"):
            raise InputError(
                f"{path}: Adam with weight_decay {group['weight_decay']} adds the "
                "decay to the gradient, so the squares are not the loss's; expected "
                "AdamW"
            )
    return groups[0] if groups else {}


def find_kind(path: Path, states: Iterable[Mapping], settings: Mapping) -> str:
    kinds = {_kind(state) for state in states}
    kind = kinds.pop() if len(kinds) == 1 else None
    if kind is not None:
        return kind
    names = {name for state in states for name, x in state.items() if x is not None}
    raise InputError(
        f"{path}: expected moving averages of squared gradients for every parameter, "
        f"got {_reason(names, settings)}"
    )


def _kind(state: Mapping) -> str | None:
    if "exp_avg_diff" in state:
        return None  # Adan
    if "exp_avg_sq_row" in state or "row_var" in state or "variance" in state:
        return ADAFACTOR
    if "exp_avg_sq" in state:
        return ADAM if "RMS" not in state else ADAFACTOR
    if "state1" in state and "state2" in state:
        return ADAM_8BIT
    return None


def _reason(names: set[str], settings: Mapping) -> str:
    if not names and "betas" in settings:
        return "none: no step was taken"
    if "ns_steps" in settings:
        return "Muon's momentum: the mean of gradients says nothing of their squares"
    if names <= {"step", "momentum_buffer"} or "dampening" in settings:
        return "SGD's state: it keeps at most the mean of gradients"
    if names <= {"step", "exp_avg"} or names <= {"step", "state1", "qmap1", "absmax1"}:
        return "Lion's state: it keeps the mean of gradients only"
    return f"the state of another optimizer, with {', '.join(sorted(names))}"


def decays(
    path: Path, kind: str, settings: Mapping
) -> tuple[Decay | None, float | None]:
    if kind == ADAFACTOR:
        power = settings.get("decay_rate", settings.get("beta2_decay", -0.8))
        return Growing(float(power)), None
    if "betas" not in settings:
        return None, None
    betas = [float(beta) for beta in settings["betas"]]
    check_betas(f"{path}: betas", betas)
    return Exponential(betas[1]), betas[0]


def check_betas(name: str, betas: Sequence[float]) -> None:
    if len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
        raise InputError(
            f"{name} must be Adam's two numbers in [0, 1), not {list(betas)}"
        )


def read(label: str, values: Tensor | Deferred) -> Tensor:
    """A moving average as float32. Raises InputError for half precision: there a step's
    part of the average, (1 - beta2) g^2, is lost in rounding."""
    tensor = values.read() if isinstance(values, Deferred) else values
    if tensor.dtype not in (torch.float32, torch.float64):
        raise InputError(
            f"{label}: the moving averages are {tensor.dtype}, in which a step's "
            "part is lost in rounding; expected torch.float32"
        )
    return tensor.float()


def _whole(label: str, values: Tensor | Deferred | None) -> Callable[[], Tensor] | None:
    return None if values is None else functools.partial(read, label, values)


def _adam(label: str, state: Mapping) -> Moments:
    square = state["exp_avg_sq"]
    return Moments(
        tuple(square.shape),
        functools.partial(read, label, square),
        _whole(label, state.get("exp_avg")),
    )


def _adafactor(label: str, state: Mapping) -> Moments:
    # Adafactor's exp_avg is a mean of updates, not of gradients.
    square = state.get("exp_avg_sq", state.get("variance"))
    if square is not None:
        return Moments(
            tuple(square.shape), functools.partial(read, label, square), None
        )
    if "row_var" in state:  # torch's, whose factors keep the dimension
        rows, columns = state["row_var"], state["col_var"]
        shape = (*rows.shape[:-1], columns.shape[-1])
    else:
        rows, columns = state["exp_avg_sq_row"], state["exp_avg_sq_col"]
        shape = (*rows.shape, columns.shape[-1])

    def product() -> Tensor:
        r = read(label, rows).reshape(*shape[:-1], 1)
        c = read(label, columns).reshape(*shape[:-2], 1, shape[-1])
        mean = r.mean(-2, keepdim=True)
        return torch.where(mean > 0, r / mean, 0.0) * c

    return Moments(shape, product, None)


def _adam_8bit(label: str, state: Mapping) -> Moments:
    def dequantized(number: int) -> Tensor:
        values = state[f"state{number}"]
        if values.dtype != torch.uint8:  # small tensors
            return read(label, values)
        value_of = state[f"qmap{number}"].float()
        codes = values.flatten().long()
        largest = state.get(f"absmax{number}")
        if largest is None:  # one for the whole tensor
            scale = state[f"max{number}"].float()
        else:
            size = _block_size(label, codes.numel(), largest.numel())
            scale = largest.float().repeat_interleave(size)[: codes.numel()]
        return (value_of[codes] * scale).view(values.shape)

    return Moments(
        tuple(state["state2"].shape),
        functools.partial(dequantized, 2),
        functools.partial(dequantized, 1),
    )


def _block_size(label: str, values: int, blocks: int) -> int:
    for size in _BNB_BLOCKS:
        if -(-values // size) == blocks:
            return size
    raise InputError(
        f"{label}: {values} values in {blocks} blocks; expected a block size of "
        "bitsandbytes, such as 256"
    )


_READERS: dict[str, Any] = {
    ADAM: _adam,
    ADAFACTOR: _adafactor,
    ADAM_8BIT: _adam_8bit,
}
