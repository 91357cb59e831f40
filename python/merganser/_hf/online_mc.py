"""Squares of gradients at labels drawn from the model while it trains."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from .. import ops
from .._C import InputError
from .._fisher.batches import Batch
from .._fisher.model_state import eval_mode
from .._fisher.sequences import count_sequences
from .mode import Mode
from .outputs import Outputs


class Sampling(Mode):
    """Adds (sum of gradients at drawn labels)^2 of micro-batches."""

    labels = "model"

    def __init__(
        self, model: nn.Module, args: Any, outputs: Outputs, interval: int, seed: int
    ):
        super().__init__(model, args, outputs)
        self.interval = interval
        self._seed = seed

    def finish(self) -> None:
        if self.args.world_size > 1:
            count = torch.tensor(self.examples, device=self.args.device)
            torch.distributed.all_reduce(count)
            self.examples = int(count)
            for total in self.sums.values():
                torch.distributed.all_reduce(total)

    def sample(self, raw, batch: Batch, retain_graph: bool = False) -> None:
        """Leaves the gradients of the training unchanged; raw: outputs of the model."""
        processes = self.args.world_size
        device = next(iter(self.sums.values())).device
        first = self.examples * processes + self.args.process_index
        batch.indices = first + processes * torch.arange(batch.size, device=device)
        loss, outputs = self.outputs.read(raw, batch)
        gradients = torch.autograd.grad(
            outputs,
            list(self.parameters.values()),
            loss.sampled(outputs, batch, self._seed, 0),
            retain_graph=retain_graph,
            allow_unused=True,
        )
        for total, gradient in zip(self.sums.values(), gradients, strict=True):
            if gradient is not None:
                ops.square_accumulate_(total, gradient)
        self.examples += count_sequences(batch)


class OnlineMC(Sampling):
    """Samples every micro-batch of a step on the training's own graph, with its
    dropout: no forward pass."""

    _step = -1  # in the window
    _collecting = False

    def begin_step(self, collecting: bool) -> None:
        self._step += collecting
        self._collecting = collecting

    def see(self, batch: Batch, raw, num_items) -> None:
        if self._collecting and self._step % self.interval == 0:
            if batch.labels is not None and isinstance(raw, tuple):
                raw = raw[1:]  # without the loss
            self._sample_on_graph(raw, batch)

    def _sample_on_graph(self, raw, batch: Batch) -> None:
        try:
            self.sample(raw, batch, retain_graph=True)
        except RuntimeError as error:
            if "use_reentrant" not in str(error):
                raise
            raise InputError(
                "FisherCallback('online_mc') takes gradients that re-entrant "
                "checkpoints lack: pass use_reentrant=False to checkpoint, or use "
                "'online_mc_eval'"
            ) from error


class OnlineMCEval(Sampling):
    """Samples the last micro-batch of a step by a pass in eval mode."""

    _collecting = False
    _batch: Batch | None = None  # last micro-batch

    def begin_step(self, collecting: bool) -> None:
        self._collecting = collecting

    def see(self, batch: Batch, raw, num_items) -> None:
        self._batch = batch

    def before_update(self, step: int) -> None:
        if self._collecting and step % self.interval == 0 and self._batch is not None:
            self._sample_in_eval_mode(self._batch)

    def _sample_in_eval_mode(self, batch: Batch) -> None:
        """Leaves the random state of the training unchanged."""
        device = next(iter(self.sums.values())).device
        with (
            torch.random.fork_rng([device] if device.type == "cuda" else []),
            eval_mode(self.model),
        ):
            self.sample(self.model(*batch.args, **batch.kwargs), batch)
