"""Squares of gradients at labels drawn from the model while it trains."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from .. import ops
from .._fisher.batches import Batch
from .._fisher.model_state import eval_mode
from .mode import Mode
from .outputs import Outputs


class OnlineMC(Mode):
    """Adds (sum of gradients at drawn labels)^2 of the last micro-batch of a step."""

    labels = "model"

    def __init__(
        self, model: nn.Module, args: Any, outputs: Outputs, interval: int, seed: int
    ):
        super().__init__(model, args, outputs)
        self._interval = interval
        self._seed = seed
        self._collecting = False
        self._batch: Batch | None = None  # last micro-batch

    def begin_step(self, collecting: bool) -> None:
        self._collecting = collecting

    def see(self, batch: Batch, raw, num_items) -> None:
        self._batch = batch

    def before_update(self, step: int) -> None:
        if self._collecting and step % self._interval == 0 and self._batch is not None:
            self._sample(self._batch)

    def finish(self) -> None:
        if self.args.world_size > 1:
            count = torch.tensor(self.examples, device=self.args.device)
            torch.distributed.all_reduce(count)
            self.examples = int(count)
            for total in self.sums.values():
                torch.distributed.all_reduce(total)

    def _sample(self, batch: Batch) -> None:
        """Leaves the gradients and the random state of the training unchanged."""
        processes = self.args.world_size
        device = next(iter(self.sums.values())).device
        first = self.examples * processes + self.args.process_index
        batch.indices = first + processes * torch.arange(batch.size, device=device)
        with (
            torch.random.fork_rng([device] if device.type == "cuda" else []),
            eval_mode(self.model),
        ):
            raw = self.model(*batch.args, **batch.kwargs)
            loss, outputs = self.outputs.read(raw, batch)
            gradients = torch.autograd.grad(
                outputs,
                list(self.parameters.values()),
                loss.sampled(outputs, batch, self._seed, 0),
                allow_unused=True,
            )
        for total, gradient in zip(self.sums.values(), gradients, strict=True):
            if gradient is not None:
                ops.square_accumulate_(total, gradient)
        self.examples += batch.size
