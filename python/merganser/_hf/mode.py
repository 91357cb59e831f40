"""Interface between FisherCallback and the ways to collect a Fisher."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from .._fisher.batches import Batch
from .._fisher.model_state import trainable_parameters
from .._fisher.squares import accumulator
from .outputs import Outputs


class Mode:
    """Sums squared gradients over the window. FisherCallback calls the methods in this
    order; subclasses override those that they need."""

    labels = "data"  # as in FisherResult

    def __init__(self, model: nn.Module, args: Any, outputs: Outputs):
        """args: the Trainer's."""
        self.model = model
        self.args = args
        self.outputs = outputs
        self.parameters = trainable_parameters(model)
        self.sums: dict[str, Tensor] = {}
        self.examples = 0  # number of examples in the sums

    def has_resumed(self) -> bool:
        """Returns whether a checkpoint has restored the sums."""
        return False

    def begin_window(self) -> None:
        self.sums = {name: accumulator(p) for name, p in self.parameters.items()}
        self.examples = 0

    def begin_step(self, collecting: bool) -> None:
        """collecting: the step belongs to the window."""

    def see(self, batch: Batch, raw, num_items) -> None:
        """After a forward pass in training; raw: the model's return value."""

    def end_backward(self) -> None:
        """After a backward pass, except the last one of a step."""

    def before_update(self, step: int) -> None:
        """Before the optimizer's step; step: its number in the window."""

    def after_update(self) -> None:
        """After the optimizer's step. Also called after an interrupted run."""

    def problem(self) -> str | None:
        """Why the sums are no Fisher, once training has ended; None: they are one."""

    def finish(self) -> None:
        """After the last step; completes `sums` and `examples`."""
