"""What the gradient of a transformers Trainer's step is made of."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .._C import InputError
from .._fisher.batches import Batch
from .._losses.loss import Loss

# How far a loss in bfloat16 may be from what it is taken for.
_TOLERANCE = 0.02


@dataclass
class _MicroBatch:
    examples: int
    divisor: float  # loss = sum of negative log-likelihoods / divisor
    factor: Tensor | None = None  # d (what backward is called on) / d loss


class LossScale:
    """The weight with which a step's squared gradient enters the Fisher.

    With g_i the gradient of example i's negative log-likelihood, the gradient of a
    step of W processes is (1/W) sum_i c_i g_i. The c_i depend on whether the model
    divides by what is in its micro-batch or by Trainer's `num_items_in_batch`, on
    what Trainer makes of the loss then (a share of the accumulated micro-batches, or
    not; times W, or not), and on the length of the last micro-batch. So they are not
    guessed but read off: the value of the first loss tells the first, a hook on the
    loss the second.
    """

    def __init__(self):
        self._parts: list[_MicroBatch] = []
        self._by_items: bool | None = None  # divides by num_items_in_batch
        self.checked = False  # whether a loss was seen to be the one it is taken for

    def begin_step(self) -> None:
        self._parts.clear()

    def add(
        self,
        loss: Loss,
        outputs: Tensor,
        batch: Batch,
        value: Tensor,
        num_items: Tensor | int | None,
        on_backward: Callable[[], None],
    ) -> None:
        """A micro-batch's forward pass: its outputs (B, ...) and its loss."""
        if self._parts and self._parts[-1].factor is None:
            raise InputError(
                "the model was called twice in training before a backward pass, so "
                "that it is not known what the step's gradient is a sum of: use "
                "FisherCallback('online_mc')"
            )
        part = _MicroBatch(
            batch.size, self._divisor(loss, outputs.detach(), batch, value, num_items)
        )

        def receive(factor: Tensor) -> None:
            part.factor = factor.detach()
            on_backward()

        value.register_hook(receive)
        self._parts.append(part)

    def step(self, processes: int, device) -> tuple[int, float]:
        """n, the examples of the step that was accumulated, over all processes, and
        the weight n / sum_i (c_i / W)^2 of the squared gradient: n^2 for a mean.

        The weighted square is an unbiased estimate of sum_i g_i^2 where gradients
        are independent and of mean zero, as with the plain mean.
        """
        examples = sum(part.examples for part in self._parts)
        squares = sum(
            part.examples * (float(part.factor) / (part.divisor or math.inf)) ** 2
            for part in self._parts
        )
        if processes > 1:
            both = torch.tensor([examples, squares], dtype=torch.float64, device=device)
            torch.distributed.all_reduce(both)
            examples, squares = int(both[0]), float(both[1]) / processes**2
        return examples, examples / squares if squares > 0 else 0.0

    def _divisor(self, loss, outputs, batch, value, num_items) -> float:
        terms = loss.terms(outputs, batch)
        items = terms if num_items is None else float(num_items)
        value = float(value.detach())
        if not math.isfinite(value) or value == 0:
            return terms  # nothing can be told, and nothing follows
        if self.checked and (self._by_items is not None or items == terms):
            return items if self._by_items else terms
        measured = loss.nll(outputs, batch) / value
        if not (_near(measured, terms) or _near(measured, items)):
            mean = measured * value / terms
            raise InputError(
                f"the model's loss is {value:.6g}, but the mean of loss='{loss.name}' "
                f"is {mean:.6g} for its outputs and labels: give FisherCallback the "
                "loss that the model has, or use 'online_mc'"
            )
        self.checked = True
        by_items = abs(measured - items) < abs(measured - terms)
        if not _near(items, terms):
            self._by_items = by_items
        return items if by_items else terms


def _near(a: float, b: float) -> bool:
    return abs(a - b) <= _TOLERANCE * b
