"""A proximal term over the trainable parameters of a model."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from .._C import InputError
from .._common.wrappers import parameters_inside
from .._fisher.model_state import trainable_parameters
from .._fisher.stored import is_of_other_model
from .._merge.checkpoint import read_state
from .._merge.states import check_extra, check_shape, finite, some, state_of
from .._posterior.inputs import Model
from ..fisher_result import FisherResult
from ..posterior import Posterior

_BLOCK = 1 << 16  # elements of a tensor that a CPU processes at a time


class ProximalTerm:
    """1/2 ||theta - theta_0||^2_P, over a model's trainable parameters."""

    def __init__(
        self, model: nn.Module, start: list[Tensor], precision: dict[str, Tensor]
    ):
        parameters = trainable_parameters(model)
        self._names = list(parameters)
        self._parameters = list(parameters.values())
        self._start = start
        self._precision = [precision[name] for name in self._names]
        self._max: list[float] | None = None  # of each precision
        self._gradients: list[Tensor] = []  # kept: new memory in each step is slow

    def add_gradient(self, factor: float) -> None:
        """Adds factor P (theta - theta_0) to the gradients, to which the backward
        passes of the step add the loss's: it is the same in all processes, so that
        their mean keeps it."""
        if not self._gradients:
            self._gradients = [torch.zeros_like(p) for p in self._parameters]
        fresh = all(p.grad is None for p in self._parameters)
        for p, gradient in zip(self._parameters, self._gradients, strict=True):
            if p.grad is None:
                p.grad = gradient if fresh else gradient.zero_()
        gradients = [cast(Tensor, p.grad) for p in self._parameters]
        self._add(gradients, [factor] * len(gradients), fresh)

    def release(self) -> None:
        """Frees the memory of the gradients."""
        self._gradients = []

    def shrink(self, optimizer: Any) -> None:
        """theta -= lr P (theta - theta_0), with each group's learning rate."""
        rates = {
            p: float(group["lr"])
            for group in optimizer.param_groups
            for p in group["params"]
        }
        self._check_steps(rates)
        self._add(
            [p.detach() for p in self._parameters],
            [-rates.get(p, 0.0) for p in self._parameters],
        )

    def value(self) -> float:
        with torch.no_grad():
            terms = zip(self._parameters, self._start, self._precision, strict=True)
            return sum(
                float((h.double() * (p.double() - s.double()).square()).sum()) / 2
                for p, s, h in terms
            )

    @torch.no_grad()
    def _add(
        self, targets: list[Tensor], factors: list[float], fresh: bool = False
    ) -> None:
        """targets = (0 if fresh else targets) + factors P (theta - theta_0)"""
        here = [p.detach() for p in self._parameters]
        all_of = (here, self._start, self._precision, targets)
        for (p, s, h, x), c in _blocks(*all_of, factors=factors):
            if fresh:
                torch._foreach_zero_(x)  # type: ignore[attr-defined]
            away = torch._foreach_sub(p, s)  # type: ignore[attr-defined]
            torch._foreach_addcmul_(x, away, h, c)  # type: ignore[attr-defined]

    def _check_steps(self, rates: dict[Tensor, float]) -> None:
        if self._max is None:
            self._max = [float(h.max()) if h.numel() else 0.0 for h in self._precision]
        for name, p, most in zip(self._names, self._parameters, self._max, strict=True):
            if rates.get(p, 0.0) * most > 1:
                raise InputError(
                    f"lr * weight * H / N is {rates[p] * most:.3g} in tensor {name!r}, "
                    "so a decoupled step would overshoot theta_0: use decoupled=False, "
                    "or a smaller weight"
                )


def _blocks(
    *tensors: list[Tensor], factors: list[float]
) -> Iterator[tuple[list[list[Tensor]], list[float]]]:
    """All tensors, since operations on a GPU are one launch each; on a CPU rows of one
    parameter, few enough for an operation to find them in the cache."""
    if not all(x.is_cpu for x in tensors[0]):
        yield list(tensors), factors
        return
    for *whole, factor in zip(*tensors, factors, strict=True):
        for part in _rows(whole):
            yield [[x] for x in part], [factor]


def _rows(tensors: list[Tensor]) -> Iterable[Sequence[Tensor]]:
    count = tensors[0].numel()
    if count <= _BLOCK:
        return [tensors]
    rows = max(1, len(tensors[0]) * _BLOCK // count)
    return zip(*(x.split(rows) for x in tensors), strict=True)


def scaled_precisions(
    model: nn.Module, fishers: Sequence[FisherResult | Posterior], scale: float
) -> dict[str, Tensor]:
    """scale * sum_s H_s of each trainable parameter, in its dtype.

    scale: weight / N.
    """
    parameters = trainable_parameters(model)
    first_names = {id(p): name for name, p in parameters_inside(model)}
    aliases = dict(parameters_inside(model, remove_duplicate=False))
    sums: dict[str, Tensor] = {}
    for position, fisher in enumerate(fishers):
        label = f"fisher[{position}]" if len(fishers) > 1 else "fisher"
        check_extra(fisher.H, aliases, label, "the model")
        found = {first_names[id(aliases[n])]: h for n, h in fisher.H.items()}
        missing = [name for name in parameters if name not in found]
        if missing:
            raise InputError(
                f"{label} lacks trainable parameters of the model: {some(missing)}"
            )
        for name, p in parameters.items():
            h = finite(found[name], label, name, 0.0)
            check_shape(h, p.shape, label, name, "the model")
            h = h.to(p.device, torch.float64)
            sums[name] = h if name not in sums else sums[name] + h
    scaled = {name: (scale * h).to(parameters[name].dtype) for name, h in sums.items()}
    for name, h in scaled.items():
        if not h.isfinite().all():
            raise InputError(
                f"weight * H / N overflows {h.dtype} in tensor {name!r}, as weight / N "
                f"is {scale:g}: use a smaller weight"
            )
    return scaled


def start_of(
    model: nn.Module, given: Model | None, fishers: Sequence[FisherResult | Posterior]
) -> list[Tensor]:
    """theta_0 of the trainable parameters, in their dtypes."""
    parameters = trainable_parameters(model)
    if given is None:
        _check_hash(fishers, model, "the one to train, and start is not given")
        return [p.detach().clone() for p in parameters.values()]
    if isinstance(given, str | os.PathLike):
        _check_hash(fishers, given, f"start, {given}")
        state = read_state(given)
    else:
        state = state_of(given, "start")
    found = []
    for name, p in parameters.items():
        names = [n for n, q in parameters_inside(model, False) if q is p]
        stored = next((n for n in names if n in state), None)
        if stored is None:
            raise InputError(f"start lacks a tensor of the model: {name!r}")
        check_shape(state[stored], p.shape, "start", name, "the model")
        found.append(finite(state[stored], "start", name).to(p, copy=True))
    return found


def _check_hash(
    fishers: Sequence[FisherResult | Posterior], model: Model, label: str
) -> None:
    """One of the Fishers, the last task's, must be at theta_0, the model's weights."""
    if all(
        isinstance(f, FisherResult) and is_of_other_model(f, model) for f in fishers
    ):
        raise InputError(
            f"the Fisher belongs to a different model than {label}: its hash differs"
        )
