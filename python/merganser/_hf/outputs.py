"""Reads the loss and the outputs from a model's return value in a Trainer."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from .._C import InputError
from .._fisher.batches import Batch
from .._losses.choice import find_loss, guess_loss
from .._losses.loss import Loss


class Outputs:
    """Reads outputs with the loss of a name; "auto" is resolved at the first batch."""

    def __init__(self, loss: str, model: nn.Module):
        self._name = loss
        self._model = model
        self._loss: Loss | None = None

    def loss_of(self, raw, batch: Batch) -> Loss:
        if self._loss is None:
            self._loss = find_loss(self._name, self._model) or guess_loss(raw, batch)
        return self._loss

    def read(self, raw, batch: Batch) -> tuple[Loss, Tensor]:
        """Returns the loss, and the outputs (B, ...) that it reads."""
        loss = self.loss_of(raw, batch)
        return loss, loss.outputs(raw, batch)

    def split(self, raw, batch: Batch) -> tuple[Tensor, Loss, Tensor]:
        """Also returns the value of the loss; for models that get labels."""
        if isinstance(raw, Mapping):
            value = raw.get("loss")
        else:
            value, raw = (raw[0], raw[1:]) if isinstance(raw, tuple) else (None, raw)
        if batch.labels is None or value is None or value.dim() != 0:
            raise InputError(
                "FisherCallback('adam') needs a model that gets labels and returns the "
                "loss, to know what the gradient is a mean of; with its own loss "
                "function, a Trainer can use 'online_mc'"
            )
        return value, *self.read(raw, batch)
