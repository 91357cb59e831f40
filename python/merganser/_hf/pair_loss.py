"""Losses of sentence-transformers, modules that get the labels and call the model."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .._C import InputError
from .._fisher.batches import Batch
from .._fisher.model_state import eval_mode
from .._losses.loss import Loss
from .adam import Adam
from .outputs import Outputs

# Number of examples whose losses are compared, and the tolerance, for bfloat16.
_FEW = 4
_TOLERANCE = 0.02


class _Mean(Loss):
    """A mean over the examples of a batch, of which only the value is known."""

    name = "pairs"

    def nll(self, outputs, batch):
        return outputs.double().expand(batch.size)

    def terms(self, outputs, batch):
        return float(batch.size)


class PairLoss(Adam):
    """Squares of the gradients of a loss module that is a mean over examples."""

    def __init__(self, model: nn.Module, args: Any, outputs: Outputs, loss: nn.Module):
        super().__init__(model, args, outputs)
        self._loss = loss
        self._is_compared = False

    def see(self, batch: Batch, raw, num_items) -> None:
        if not isinstance(raw, Tensor) or raw.dim() != 0:
            raise InputError(
                "FisherCallback takes a loss module that returns one number, not "
                f"{type(raw).__name__}"
            )
        if not self._is_compared and batch.size > 1:
            self._compare(batch)
        if self._collecting or not self._scale.checked:
            value, loss = raw, _Mean()
            self._scale.add(loss, value, batch, value, None, self._stop_clipping)

    def before_update(self, step: int) -> None:
        if not self._scale.checked and not self._scale.has_parts:
            raise InputError(
                "the Trainer did not call the loss that FisherCallback got: pass the "
                "same module to both"
            )
        super().before_update(step)

    @torch.no_grad()
    def _compare(self, batch: Batch) -> None:
        """Raises InputError where a loss is no mean over examples, as with in-batch
        negatives: its gradient is no sum over them."""
        few = min(_FEW, batch.size)
        with eval_mode(self._loss):
            together = self._value(batch.rows(0, few))
            alone = [self._value(batch.rows(i, i + 1)) for i in range(few)]
        mean = torch.stack(alone).mean()
        if not torch.isclose(together, mean, rtol=_TOLERANCE, atol=1e-6):
            name = type(self._loss).__name__
            raise InputError(
                f"{name} of {few} examples is {float(together):.6g}, and the mean of "
                f"each alone is {float(mean):.6g}: a Fisher needs a loss that is a "
                "mean over examples, without in-batch negatives"
            )
        self._is_compared = True

    def _value(self, batch: Batch) -> Tensor:
        return self._loss(*batch.args, batch.labels).double()
