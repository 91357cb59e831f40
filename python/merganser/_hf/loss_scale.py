"""Scale of the gradient of a transformers Trainer's step."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .._C import InputError
from .._fisher.batches import Batch
from .._fisher.sequences import count_sequences
from .._losses.loss import Loss

# Relative tolerance for losses in bfloat16.
_TOLERANCE = 0.02
# Max relative standard deviation of the weights of a step's examples.
_MAX_SPREAD = 0.05


@dataclass
class _MicroBatch:
    examples: int
    divisor: float  # loss = sum of negative log-likelihoods / divisor
    factor: Tensor | None = None  # d (tensor that backward is called on) / d loss


class LossScale:
    """The weight of a step's squared gradient in the Fisher.

    With g_i the gradient of example i's negative log-likelihood, the gradient of a
    step of W processes is (1/W) sum_i c_i g_i. The c_i depend on whether the model
    divides by the size of its micro-batch or by Trainer's `num_items_in_batch`, on how
    Trainer scales the loss (by the number of micro-batches, by W), and on the length of
    the last micro-batch. They are therefore measured: the divisor from the value of the
    first loss, the scale from a hook on the loss.
    """

    def __init__(self):
        self._parts: list[_MicroBatch] = []
        self._by_items: bool | None = None  # divides by num_items_in_batch
        self._measured = False  # whether the loss was verified once
        self.checked = False  # whether a whole step was
        self._spread = self._examples = 0.0  # sums over steps

    def begin_step(self) -> None:
        self._parts.clear()

    @property
    def has_parts(self) -> bool:
        """False if the step has no micro-batch yet."""
        return bool(self._parts)

    def add(
        self,
        loss: Loss,
        outputs: Tensor,
        batch: Batch,
        value: Tensor,
        num_items: Tensor | int | None,
        on_backward: Callable[[], None],
    ) -> None:
        """Adds a micro-batch, from its outputs (B, ...) and its loss."""
        if self._parts and self._parts[-1].factor is None:
            raise InputError(
                "the model was called twice in training before a backward pass, so "
                "the terms of the step's gradient are unknown: use "
                "FisherCallback('online_mc')"
            )
        divisor = self._divisor(loss, outputs.detach(), batch, value, num_items)
        part = _MicroBatch(count_sequences(batch), divisor)

        def receive(factor: Tensor) -> None:
            part.factor = factor.detach()
            on_backward()

        value.register_hook(receive)
        self._parts.append(part)

    def step(self, processes: int, device) -> tuple[int, float]:
        """The number n of examples of the accumulated step, over all processes, and the
        weight n / sum_i (c_i / W)^2 of the squared gradient: n^2 for a mean.

        The weighted square is an unbiased estimate of sum_i g_i^2 if gradients are
        independent with mean zero, as for the plain mean, and if the c_i do not depend
        on the g_i. They do where the loss is a mean over the tokens of a micro-batch:
        fewer tokens have a larger c_i and a smaller g_i.
        """
        sums = [0.0] * 5
        for part in self._parts:
            factor = 0.0 if part.factor is None else float(part.factor)
            c, n = factor / (part.divisor or math.inf), part.examples
            for k, power in enumerate((1, c, c**2, c * n, (c * n) ** 2)):
                sums[k] += n * power
        if processes > 1:
            both = torch.tensor(sums, dtype=torch.float64, device=device)
            torch.distributed.all_reduce(both)
            sums = both.tolist()
        n, _, squares, _, _ = sums
        if squares > 0:
            # Means of equally long examples have equal c_i, or equal c_i n.
            self._spread += n * min(_variation(n, *sums[1:3]), _variation(n, *sums[3:]))
            self._examples += n
        if not self.checked and self.problem:
            raise InputError(f"{self.problem}; or use 'online_mc'")
        self.checked = True
        return int(n), n * processes**2 / squares if squares > 0 else 0.0

    @property
    def problem(self) -> str | None:
        """The reason why the sums are no Fisher; None: they are one."""
        if self._spread <= _MAX_SPREAD**2 * self._examples:
            return None
        return (
            "the loss is a mean over the tokens of a micro-batch, so the examples of a "
            "step have unequal weights: train with one micro-batch per step and one "
            "process, or with a model that divides by num_items_in_batch"
        )

    def _divisor(self, loss, outputs, batch, value, num_items) -> float:
        terms = loss.terms(outputs, batch)
        items = terms if num_items is None else float(num_items)
        value = float(value.detach())
        if not math.isfinite(value) or value == 0:
            return terms  # cannot be measured, and adds nothing
        if self._measured and (self._by_items is not None or items == terms):
            return items if self._by_items else terms
        measured = float(loss.nll(outputs, batch).sum()) / value
        if not (_near(measured, terms) or _near(measured, items)):
            mean = measured * value / terms
            raise InputError(
                f"the model's loss is {value:.6g}, but the mean of loss='{loss.name}' "
                f"is {mean:.6g} for its outputs and labels: pass the model's loss to "
                "FisherCallback, or use 'online_mc'"
            )
        self._measured = True
        by_items = abs(measured - items) < abs(measured - terms)
        if not _near(items, terms):
            self._by_items = by_items
        return items if by_items else terms


def _variation(count: float, total: float, squares: float) -> float:
    """Variance over the squared mean of `count` values, from their sums."""
    return max(count * squares / total**2 - 1, 0.0) if total else 0.0


def _near(a: float, b: float) -> bool:
    return abs(a - b) <= _TOLERANCE * b
