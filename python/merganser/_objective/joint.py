"""The joint objective J of a merge, on a set of examples per task."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import takewhile

import torch
from torch import Tensor

from .._fisher.batches import Batch
from .._fisher.forward import Forward
from .states import Tensors
from .sums import add_gradient, summed_loss, zeros


@dataclass
class Term:
    """A task's part of the objective, from n examples of the N of its data set."""

    weight: float  # a_t N_t
    batches: list[Batch]

    @property
    def count(self) -> int:
        return sum(batch.size for batch in self.batches)

    @property
    def scale(self) -> float:
        return self.weight / self.count


class Proximal:
    """1/2 |theta - theta_0|^2 in the norm of H_0; zero without a base Fisher."""

    def __init__(
        self, parameters: Mapping[str, Tensor], origin: Tensors, h0: Tensors | None
    ):
        self._parameters = parameters
        self._origin = origin
        self.h0 = h0 or {}

    def value(self) -> float:
        total = 0.0
        for name, h in self.h0.items():
            away = self._parameters[name].detach() - self._origin[name]
            total += float((h * away.square_()).sum(dtype=torch.float64))
        return total / 2

    def add_gradient(self, sums: Tensors, scale: float = 1.0) -> None:
        for name, gradient in self.gradient().items():
            sums[name].add_(gradient.to(sums[name].dtype), alpha=scale)

    def gradient(self) -> Tensors:
        """H_0 (theta - theta_0)"""
        return {
            name: h * (self._parameters[name].detach() - self._origin[name])
            for name, h in self.h0.items()
        }


class JointObjective:
    """J(theta) = sum_t a_t N_t/n_t sum_i l_ti(theta) + 1/2 |theta - theta_0|^2_H0."""

    def __init__(
        self,
        parameters: Mapping[str, Tensor],
        forward: Forward,
        terms: Iterable[Term],
        proximal: Proximal,
    ):
        self.parameters = parameters
        self.forward = forward
        self.terms = list(terms)
        self.proximal = proximal
        # Called after each batch with the number of examples done in a pass over all
        # tasks, and their total.
        self.after_batch: Callable[[int, int], None] | None = None

    @property
    def total_weight(self) -> float:
        """sum_t a_t N_t"""
        return sum(term.weight for term in self.terms)

    def read(self, term: Term) -> Iterator[Batch]:
        """A task's batches, in a pass that reads the tasks in their order."""
        total = sum(t.count for t in self.terms)
        done = sum(t.count for t in takewhile(lambda t: t is not term, self.terms))
        for batch in term.batches:
            yield batch
            done += batch.size
            if self.after_batch is not None:
                self.after_batch(done, total)

    def value(self) -> float:
        return self.value_and_losses()[0]

    def value_and_losses(self) -> tuple[float, float]:
        """J, and J without its proximal term."""
        terms = [t.scale * summed_loss(self.forward, self.read(t)) for t in self.terms]
        losses = sum(terms)
        return losses + self.proximal.value(), losses

    def gradient(self) -> Tensors:
        sums = zeros(self.parameters)
        for term in self.terms:
            for batch in self.read(term):
                add_gradient(sums, self.parameters, self.forward, batch, term.scale)
        self.proximal.add_gradient(sums)
        return sums


def move(parameters: Mapping[str, Tensor], start: Tensors, step: Mapping[str, Tensor]):
    """parameters = start + step"""
    with torch.no_grad():
        for name, p in parameters.items():
            p.copy_(start[name] + step[name].to(p.dtype))


def are_finite(tensors: Mapping[str, Tensor]) -> bool:
    return all(bool(x.isfinite().all()) for x in tensors.values())
