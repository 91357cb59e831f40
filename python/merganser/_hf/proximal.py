"""The proximal term of earlier tasks' Fishers in a transformers Trainer."""

from __future__ import annotations

import os
from collections.abc import Sequence
from numbers import Real
from typing import Any, cast
from weakref import WeakSet

import torch
from torch import Tensor, nn
from transformers import TrainerCallback

from .. import _C
from .._arguments import check_count
from .._C import InputError
from .._fisher.model_state import trainable_parameters
from .._merge.checkpoint import read_state
from .._merge.states import check_extra, check_shape, finite, some, state_of
from .._posterior.inputs import Model, load_fisher
from .._wrappers import parameters_inside, unwrapped
from ..fisher_result import FisherResult
from ..posterior import Posterior
from .trainer import check_whole_gradients, count_examples

Fisher = FisherResult | Posterior | str | os.PathLike

# Models whose gradients have the term while they train.
_with_term: WeakSet[nn.Module] = WeakSet()


def has_term(model: nn.Module) -> bool:
    """Returns whether the gradients of a training model contain a proximal term."""
    return model in _with_term


class ProximalCallback(TrainerCallback):
    """Adds elastic weight consolidation to a Trainer: the proximal term

        weight / (2 N) * ||theta - theta_0||^2_H,    H = sum_s N_s F_s,

    of the mean loss over N examples. One Fisher is EWC; those of the base and of all
    earlier tasks are online EWC.

        callback = ProximalCallback("base.fisher.safetensors")
        Trainer(model, args, train_dataset=data, callbacks=[callback]).train()

    The gradient of the term, weight / N * H (theta - theta_0), is added to that of the
    loss before clipping, once per step for any accumulation and number of processes
    (DDP): the minimiser is that of loss plus term, whatever the optimizer divides by.
    With `decoupled`, the parameters are multiplied instead, as by AdamW's weight decay:
    theta -= lr * weight / N * H (theta - theta_0) before the optimizer's step, with the
    learning rate of their group. The optimizer's moments, clipping and the logged norm
    then do not contain the term. The logged loss never does; `value()` returns it.

    Memory: theta_0 and H, and without `decoupled` the gradients from the first forward
    pass of a step on.

    Args:
        fisher: a FisherResult, a Posterior (H is its precision) or the path of a Fisher
            file; or a list of these, which are summed. Each must have every trainable
            parameter.
        weight: factor of the term.
        decoupled: apply the term outside of the gradient.
        start: theta_0, a module, state dict, model directory or file; None: the
            model's parameters when training begins. Needed to resume.
        num_examples: N; None: the size of the data set. For a loss that is a mean over
            tokens, pass their number.

    Raises, from Trainer.train():
        InputError: a Fisher that lacks a trainable parameter, has other names or shapes
            or belongs to another model than the checkpoint `start`; fp16, DeepSpeed or
            FSDP; resuming without `start`; a decoupled step that would overshoot.
    """

    def __init__(
        self,
        fisher: Fisher | Sequence[Fisher],
        weight: float = 1.0,
        *,
        decoupled: bool = False,
        start: Model | None = None,
        num_examples: int | None = None,
    ) -> None:
        if not isinstance(weight, Real) or not 0 <= weight < float("inf"):
            raise InputError(
                f"weight must be a finite number, not negative, not {weight!r}"
            )
        if num_examples is not None:
            check_count("num_examples", num_examples)
        given = [fisher] if isinstance(fisher, _KINDS) else fisher
        if not isinstance(given, Sequence) or not given:
            raise InputError(
                "fisher must be a FisherResult, a Posterior, the path of a Fisher file "
                "or a list of these"
            )
        self.fishers = [
            f if isinstance(f, Posterior) else load_fisher(f) for f in given
        ]
        self.weight = weight
        self.decoupled = decoupled
        self.start = start
        self.num_examples = num_examples
        self._term: _Term | None = None

    def value(self) -> float:
        """The term at the model's parameters, in units of the mean loss."""
        if self._term is None:
            raise InputError("the term has a value once training has begun")
        return self._term.value()

    def on_train_begin(self, args, state, control, model, train_dataloader, **_):
        check_whole_gradients(args, "ProximalCallback")
        model = unwrapped(model)
        if self.start is None and state.global_step > 0:
            raise InputError(
                f"training resumes at step {state.global_step}: pass start to "
                "ProximalCallback, the model that it began with"
            )
        count = self.num_examples or count_examples(
            train_dataloader,
            "pass num_examples to ProximalCallback, by which it divides the term",
        )
        precision = _precisions(model, self.fishers, self.weight / count)
        self._term = _Term(model, _start(model, self.start, self.fishers), precision)
        _with_term.discard(model)
        if not self.decoupled:
            _with_term.add(model)

    def on_step_begin(self, args, state, control, **_):
        if self._term is not None and not self.decoupled:
            self._term.add_gradient()

    def on_pre_optimizer_step(self, args, state, control, optimizer, **_):
        if self._term is not None and self.decoupled:
            self._term.shrink(optimizer)

    def on_train_end(self, args, state, control, model, **_):
        _with_term.discard(unwrapped(model))


_KINDS = (FisherResult, Posterior, str, os.PathLike)


class _Term:
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

    def add_gradient(self) -> None:
        """Adds P (theta - theta_0) to the gradients, to which the backward passes of
        the step add the loss's: it is the same in all processes, so that their mean
        keeps it."""
        with torch.no_grad():
            for p, gradient in zip(self._parameters, self._pull(), strict=True):
                if p.grad is None:
                    p.grad = gradient
                else:
                    p.grad += gradient

    def shrink(self, optimizer: Any) -> None:
        """theta -= lr P (theta - theta_0), with each group's learning rate."""
        rates = {
            p: float(group["lr"])
            for group in optimizer.param_groups
            for p in group["params"]
        }
        self._check_steps(rates)
        with torch.no_grad():
            for p, pull in zip(self._parameters, self._pull(), strict=True):
                if p in rates:
                    p.sub_(pull, alpha=rates[p])

    def value(self) -> float:
        with torch.no_grad():
            terms = zip(self._parameters, self._start, self._precision, strict=True)
            return sum(
                float((h.double() * (p.double() - s.double()).square()).sum()) / 2
                for p, s, h in terms
            )

    def _pull(self) -> list[Tensor]:
        pulls = torch._foreach_sub([p.detach() for p in self._parameters], self._start)
        torch._foreach_mul_(pulls, self._precision)
        return cast(list[Tensor], pulls)

    def _check_steps(self, rates: dict[Tensor, float]) -> None:
        if self._max is None:
            self._max = [float(h.max()) if h.numel() else 0.0 for h in self._precision]
        for name, p, most in zip(self._names, self._parameters, self._max, strict=True):
            if rates.get(p, 0.0) * most > 1:
                raise InputError(
                    f"lr * weight * H / N is {rates[p] * most:.3g} in tensor {name!r}, "
                    "so that a decoupled step would pass theta_0: use decoupled=False, "
                    "or a smaller weight"
                )


def _precisions(
    model: nn.Module, fishers: Sequence[FisherResult | Posterior], scale: float
) -> dict[str, Tensor]:
    """scale * sum_s H_s of each trainable parameter, in its dtype."""
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
    return {name: (scale * h).to(parameters[name].dtype) for name, h in sums.items()}


def _start(
    model: nn.Module, given: Model | None, fishers: Sequence[FisherResult | Posterior]
) -> list[Tensor]:
    """theta_0 of the trainable parameters, in their dtypes."""
    parameters = trainable_parameters(model)
    if given is None:
        return [p.detach().clone() for p in parameters.values()]
    if isinstance(given, str | os.PathLike):
        _check_hash(given, fishers)
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


def _check_hash(path, fishers: Sequence[FisherResult | Posterior]) -> None:
    """One of the Fishers, the last task's, must be at theta_0."""
    hashes = {getattr(f, "base_model_hash", "") for f in fishers}
    if "" not in hashes and _C.content_hash(path) not in hashes:
        raise InputError(
            f"the Fisher belongs to another model than start, {path}: its hash differs"
        )
