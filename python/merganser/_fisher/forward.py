"""Forward passes of a model, read by a loss, and the directions from outputs."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from .._losses.choice import find_loss, guess_loss
from .._losses.loss import Loss
from .batches import Batch


class Forward:
    """Returns the outputs (B, ...) of a batch; finds the loss with the first one."""

    def __init__(
        self, model: nn.Module, loss: str | Callable, dtype: torch.dtype | None
    ):
        """dtype: autocast's, or None."""
        self._model = model
        self._loss: Loss | None = find_loss(loss, model)
        self._dtype = dtype

    def __call__(self, batch: Batch) -> Tensor:
        if self._dtype is None:
            raw = self._model(*batch.args, **batch.kwargs)
        else:
            with torch.autocast(batch.indices.device.type, self._dtype):
                raw = self._model(*batch.args, **batch.kwargs)
        if self._loss is None:
            self._loss = guess_loss(raw, batch)
        return self._loss.outputs(raw, batch)

    @property
    def loss(self) -> Loss:
        assert self._loss is not None  # set with the first outputs
        return self._loss


class Pass:
    """Computes outputs of a batch, and directions from outputs."""

    def __init__(self, forward: Forward, estimator: str, samples: int, seed: int):
        self._forward = forward
        self._estimator = estimator
        self._samples = samples
        self._seed = seed

    def add_to(self, squares: Any, batch: Batch) -> None:
        squares.add(self._forward, batch, self._directions)

    def _directions(self, outputs: Tensor, batch: Batch) -> Iterable[Tensor]:
        loss = self._forward.loss
        if self._estimator == "exact":
            yield from loss.exact(outputs, batch)
        elif self._estimator == "empirical":
            yield loss.given(outputs, batch)
        else:
            # One at a time, to save memory.
            for sample in range(self._samples):
                v = loss.sampled(outputs, batch, self._seed, sample)
                yield v.div_(self._samples**0.5)
