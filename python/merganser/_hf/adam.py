"""Squares of the gradients that the optimizer is about to take."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from .. import ops
from .._fisher.batches import Batch
from .clipping import Clipping
from .loss_scale import LossScale
from .mode import Mode
from .outputs import Outputs


class Adam(Mode):
    """Adds the weighted square of each step's gradient, before clipping."""

    def __init__(self, model: nn.Module, args: Any, outputs: Outputs):
        super().__init__(model, args, outputs)
        self._scale = LossScale()
        self._clipping = Clipping(args)
        self._collecting = False

    def begin_step(self, collecting: bool) -> None:
        self._scale.begin_step()
        self._collecting = collecting

    def see(self, batch: Batch, raw, num_items) -> None:
        if self._collecting or not self._scale.checked:
            value, loss, outputs = self.outputs.split(raw, batch)
            self._scale.add(loss, outputs, batch, value, num_items, self._stop_clipping)

    def end_backward(self) -> None:
        self._clipping.restore()

    def before_update(self, step: int) -> None:
        clip = self._clipping.restore()
        if self._collecting or not self._scale.checked:
            examples, weight = self._scale.step(self.args.world_size, self.args.device)
            if self._collecting:
                self.collect(examples, weight, clip)

    def after_update(self) -> None:
        self._clipping.restore()  # after a run that stopped within a step

    def problem(self) -> str | None:
        return self._scale.problem

    def collect(self, examples: int, weight: float, clip: float | None) -> None:
        """Adds weight * gradient^2 of a step; then clips to the norm `clip`."""
        self.examples += examples
        for name, p in self.parameters.items():
            if p.grad is not None:
                ops.square_accumulate_(self.sums[name], p.grad, weight)
        if clip is not None:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), clip)

    def _stop_clipping(self) -> None:
        """Called in the backward pass, so that few exceptions can leave it disabled."""
        if self._collecting:
            self._clipping.stop()
