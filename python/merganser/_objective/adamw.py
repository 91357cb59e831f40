"""AdamW on mini-batches that hold examples of every task."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from .._fisher.batches import Batch
from .joint import JointObjective, are_finite
from .solvers import NotFinite
from .states import Tensors
from .sums import add_gradient, zeros

WARMUP = 10  # steps
ROUND = 5  # steps from one evaluation of the objective to the next


class AdamW:
    """AdamW without weight decay on J / sum_t a_t N_t.

    The learning rate is constant after a warm-up. A step takes about batch_size / T
    examples of each task. Parameters in half precision are the rounded values of
    float32 copies, which the optimizer changes: steps may be smaller than half an ulp.
    """

    def __init__(
        self,
        objective: JointObjective,
        steps: int,
        lr: float,
        batch_size: int,
        seed: int,
    ):
        self.steps = steps
        self._objective = objective
        self._lr = lr
        self._taken = 0  # steps
        self._drawn = 0  # mini-batches of each task
        self._begun = 0  # steps since the warm-up began
        size = max(1, batch_size // len(objective.terms))
        self._mini_batches = [
            _mini_batches(term.batches, size, seed + 7919 * t)
            for t, term in enumerate(objective.terms)
        ]
        self.reset()

    def after(self, step: int) -> int:
        """The last step of the round after a step."""
        return min((step // ROUND + 1) * ROUND, self.steps)

    def reset(self) -> None:
        """Resets the moments and restarts the warm-up, from the parameters."""
        # The optimizer's own views or copies: it must not touch the caller's .grad.
        self._own = {
            name: p.detach().to(_step_dtype(p)).requires_grad_()
            for name, p in self._objective.parameters.items()
        }
        self._optimizer = torch.optim.AdamW(
            list(self._own.values()), lr=self._lr, weight_decay=0.0
        )
        self._begun = 0

    def reject(self) -> bool:
        self._lr /= 2
        self.reset()
        return True

    def step(self, number: int) -> dict[str, Any]:
        """Takes the steps up to a number. Raises NotFinite for a bad one."""
        first, self._taken = self._taken, number
        self._skip_to(first)
        for _ in range(first, number):
            self._drawn += 1
            self._take([next(batches) for batches in self._mini_batches])
        found = {"objective": self._objective.value(), "lr": self._lr, "rejected": 0}
        if not math.isfinite(found["objective"]):
            raise NotFinite(found)
        return found

    def _skip_to(self, step: int) -> None:
        """Draws the mini-batches of steps that were taken by an earlier run, or not
        taken in a rejected round."""
        count = step - self._drawn
        for batches in self._mini_batches:
            next(islice(batches, count, count), None)
        self._drawn = step

    def _take(self, parts: list[list[Batch]]) -> None:
        objective = self._objective
        whole = objective.total_weight
        sums = zeros(objective.parameters)
        for term, batches in zip(objective.terms, parts, strict=True):
            count = sum(batch.size for batch in batches)
            for batch in batches:
                scale = term.weight / (whole * count)
                add_gradient(
                    sums, objective.parameters, objective.forward, batch, scale
                )
        objective.proximal.add_gradient(sums, 1 / whole)
        if not are_finite(sums):
            raise NotFinite({"objective": None, "lr": self._lr})
        self._begun += 1
        self._optimizer.param_groups[0]["lr"] = self._lr * min(1, self._begun / WARMUP)
        for name, own in self._own.items():
            own.grad = sums[name].to(own.dtype)
        self._optimizer.step()
        self._optimizer.zero_grad()
        for name, copy in self._copies.items():
            objective.parameters[name].detach().copy_(copy.detach())

    @property
    def _copies(self) -> Tensors:
        """The float32 copies of parameters in half precision."""
        return {
            name: own
            for name, own in self._own.items()
            if own.dtype != self._objective.parameters[name].dtype
        }

    def state(self) -> dict[str, Any]:
        moments = self._optimizer.state_dict()
        return {
            "moments": moments,
            "copies": {name: x.detach() for name, x in self._copies.items()},
            "lr": self._lr,
            "begun": self._begun,
            "taken": self._taken,
        }

    def load(self, state: dict[str, Any]) -> None:
        self._lr = state["lr"]
        self.reset()
        for name, copy in self._copies.items():
            copy.detach().copy_(state["copies"][name])
        self._optimizer.load_state_dict(state["moments"])
        self._begun = state["begun"]
        self._taken = state["taken"]


def _step_dtype(parameter: Tensor) -> torch.dtype:
    return torch.promote_types(parameter.dtype, torch.float32)


def _mini_batches(batches: list[Batch], size: int, seed: int) -> Iterator[list[Batch]]:
    """Endless mini-batches of at most `size` examples.

    Each pass over the data shuffles the examples of a batch, cuts it into parts of
    nearly equal size, and shuffles these. Examples of other batches cannot be put into
    one tensor, as their padding differs.
    """
    generator = torch.Generator().manual_seed(seed)
    while True:
        parts = []
        for batch in batches:
            order = torch.randperm(batch.size, generator=generator)
            for rows in order.tensor_split(math.ceil(batch.size / size)):
                parts.append((batch, rows))
        taken: list[Batch] = []
        for i in torch.randperm(len(parts), generator=generator).tolist():
            batch, rows = parts[i]
            if taken and sum(x.size for x in taken) + len(rows) > size:
                yield taken
                taken = []
            taken.append(batch.take(rows))
        yield taken
