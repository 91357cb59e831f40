"""Gradients of tasks at the experts and at other models, in comparison."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from .._fisher.forward import Forward
from .._merge.states import State
from ..mismatch_result import CandidateMismatch, Mismatch
from .groups import group_names
from .norms import Difference, compare, norms
from .states import Carrier, Tensors
from .sums import summed_gradient, zeros
from .tasks import Task


class Mismatches:
    """Gradients at the experts, and those of any model in comparison."""

    def __init__(
        self,
        carrier: Carrier,
        origin: State,
        tasks: list[Task],
        h0: Tensors | None,
        forward: Forward,
        progress: Callable | None,
    ):
        self._carrier = carrier
        self._origin = origin
        self._tasks = tasks
        self._h0 = h0
        self._forward = forward
        self._progress = progress
        self._has_fishers = all(task.h is not None for task in tasks)
        # a_t grad l_t(theta_t)
        self._at_experts = [self._gradient(t, t.expert, t.name) for t in tasks]

    def count_without_h0(self) -> int | None:
        if self._h0 is None:
            return None
        count = 0
        for name, p in self._carrier.parameters.items():
            h0 = self._h0.get(name)
            count += p.numel() if h0 is None else int((h0 == 0).sum())
        return count

    def measure(self, label: str, state: State, groups: str) -> CandidateMismatch:
        return self._measure(label, state, groups)[0]

    def measure_target(
        self, goal: State, groups: str
    ) -> tuple[CandidateMismatch, Difference]:
        """The target's mismatch, and both sides of its identity."""
        found, total = self._measure("target", goal, groups)
        return found, compare(self._sides(total, goal))

    def _measure(
        self, label: str, state: State, groups: str
    ) -> tuple[CandidateMismatch, Tensors]:
        """The norms of a mismatch, and the mismatch in total."""
        whole = group_names(self._carrier.parameters, "global")
        total = zeros(self._carrier.parameters)

        def add(t: int, task: Task) -> Mismatch:
            part = self._mismatch(t, label, state)
            for name, x in part.items():
                total[name] += x
            return self._norms(part, [task], state, whole)["all"]

        tasks = {task.name: add(t, task) for t, task in enumerate(self._tasks)}
        in_total = self._norms(total, self._tasks, state, whole)["all"]
        if groups == "global":
            return CandidateMismatch(in_total, tasks), total
        group_of = group_names(self._carrier.parameters, groups)
        by_group = self._norms(total, self._tasks, state, group_of)
        return CandidateMismatch(in_total, tasks, by_group), total

    def _sides(self, total: Tensors, goal: State) -> Iterator[tuple[Tensor, Tensor]]:
        assert self._h0 is not None  # checked with the arguments
        for name, h0 in self._h0.items():
            start = self._at(self._origin, name)
            merged = start.clone()
            for task in self._tasks:
                merged += task.weight * (self._at(task.expert, name) - start)
            positive = h0 > 0
            left = (self._at(goal, name) - merged)[positive]
            yield left, -(total[name].double()[positive] / h0[positive])

    def _mismatch(self, t: int, label: str, state: State) -> Tensors:
        """m_t of a model."""
        gradient = self._gradient(self._tasks[t], state, label)
        for name, x in gradient.items():
            x -= self._at_experts[t][name]
        return gradient

    def _gradient(self, task: Task, state: State, label: str) -> Tensors:
        """a_t grad l_t at a model."""
        what = f"{label} on {task.data_name}"
        self._carrier.load(state)
        gradient = summed_gradient(
            self._carrier.parameters,
            self._forward,
            task.examples.read(_labeled(self._progress, what)),
            what,
        )
        return {name: x.mul_(task.scale) for name, x in gradient.items()}

    def _norms(
        self, total: Tensors, tasks: list[Task], state: State, group_of: dict[str, str]
    ) -> dict[str, Mismatch]:
        def explained(name: str) -> Tensor:
            return self._explained(name, tasks, state)

        found = norms(lambda name: total[name], group_of, self._h0)
        if not self._has_fishers:
            return {group: Mismatch(x) for group, x in found.items()}
        first = norms(explained, group_of, self._h0)
        rest = norms(lambda name: total[name] - explained(name), group_of, self._h0)
        return {g: Mismatch(x, first[g], rest[g]) for g, x in found.items()}

    def _explained(self, name: str, tasks: list[Task], state: State) -> Tensor:
        """sum_t a_t H_t (theta - theta_t) at a parameter, float64."""
        result = torch.zeros_like(self._carrier.parameters[name], dtype=torch.float64)
        theta = self._at(state, name)
        for task in tasks:
            assert task.h is not None  # checked by the caller
            if name in task.h:
                away = theta - self._at(task.expert, name)
                result += task.weight * task.h[name] * away
        return result

    def _at(self, state: State, name: str) -> Tensor:
        return state[name].to(self._carrier.device, torch.float64)


def _labeled(progress: Callable | None, label: str) -> Callable | None:
    if progress is None:
        return None
    return lambda done, total, _: progress(done, total, label)
