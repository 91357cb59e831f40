"""Squares that AdamWFisher sums in its own step."""

from __future__ import annotations

import math
from typing import Any

from torch import nn

from .._fisher.squares import accumulator
from ..adamw_fisher import AdamWFisher
from .adam import Adam
from .outputs import Outputs


class AdamInOptimizer(Adam):
    """Passes each step's examples, weight and clipping norm to AdamWFisher.

    The sums are in the optimizer's state and therefore in checkpoints.
    """

    def __init__(
        self, model: nn.Module, args: Any, outputs: Outputs, optimizer: AdamWFisher
    ):
        super().__init__(model, args, outputs)
        self._optimizer = optimizer

    def has_resumed(self) -> bool:
        return self._collected() > 0

    def begin_window(self) -> None:
        self._optimizer.reset_fisher()

    def collect(self, examples: int, weight: float, clip: float | None) -> None:
        self._optimizer.collect_fisher = True
        self._optimizer.batch_size = examples
        self._optimizer.loss_terms = math.sqrt(weight)
        if clip is not None:
            self._optimizer.max_grad_norm = clip

    def after_update(self) -> None:
        super().after_update()
        self._optimizer.collect_fisher = False
        if self.args.max_grad_norm > 0:  # then set for the step only
            self._optimizer.max_grad_norm = None

    def finish(self) -> None:
        self.examples = self._collected()
        for name, p in self.parameters.items():
            total = self._optimizer.state.get(p, {}).get("fisher")
            self.sums[name] = accumulator(p) if total is None else total

    def _collected(self) -> int:
        return self._optimizer.param_groups[0]["fisher_examples"]
