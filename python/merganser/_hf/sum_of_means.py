"""The factor of the mean loss in the gradient of a transformers Trainer's step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from .._C import InputError
from .._fisher.model_state import eval_mode


class SumOfMeans:
    """How often a step's gradient contains that of the mean loss.

    Trainer passes `num_items_in_batch` to models that take any argument, and then
    neither divides by the number of micro-batches nor averages over processes: the loss
    should be a sum over that number. BERT and others ignore it, and the gradient is the
    sum of the means of all micro-batches and processes. Which one it is, is measured in
    the first forward pass.

    Attributes:
        first: factor to add before a step.
        later: factor to add after each micro-batch of a step but the last.
    """

    def __init__(self, model: nn.Module, args: Any, correct: Callable[[float], None]):
        """correct: called in the first step's forward pass with what `first` lacked."""
        self.first, self.later = 1.0, 0.0
        self._correct = correct
        self._processes = args.world_size if args.average_tokens_across_devices else 1
        self._hook = None
        if args.gradient_accumulation_steps > 1 or args.world_size > 1:
            if args.torch_compile:
                raise InputError(
                    "ProximalCallback does not support torch_compile with accumulation "
                    "or several processes: it hides the model's calls"
                )
            self._watch(model)

    def stop(self) -> None:
        if self._hook is not None:
            self._hook.remove()
            self._hook = None

    def _watch(self, model: nn.Module) -> None:
        self._hook = model.register_forward_hook(self._see, with_kwargs=True)

    def _see(self, model, args, kwargs, raw) -> None:
        if not (model.training and torch.is_grad_enabled()):
            return  # an evaluation
        self.stop()  # also for the calls below
        items = kwargs.get("num_items_in_batch")
        if items is None or _loss(raw) is None:
            return  # Trainer divides, or a loss function that gets the number
        once, twice = (
            _evaluate(model, args, kwargs | {"num_items_in_batch": n})
            for n in (items, 2 * items)
        )
        if not (once.isfinite() and once != 0):
            self._watch(model)
        elif abs(twice) > 0.75 * abs(once):
            self.first = self.later = float(self._processes)
            self._correct(self.first - 1)


def _loss(raw: Any) -> Tensor | None:
    if isinstance(raw, Mapping):
        return raw.get("loss")
    return raw[0] if isinstance(raw, tuple) and raw and raw[0].dim() == 0 else None


@torch.no_grad()
def _evaluate(model, args, kwargs) -> Tensor:
    """The loss without dropout; leaves the random state of the training unchanged."""
    device = next(model.parameters()).device
    with (
        torch.random.fork_rng([device] if device.type == "cuda" else []),
        eval_mode(model),
    ):
        loss = _loss(model(*args, **kwargs))
    assert loss is not None
    return loss.double()
