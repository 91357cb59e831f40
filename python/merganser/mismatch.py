"""The gradient mismatch of merged models."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from ._arguments import check_autocast, check_choice
from ._C import InputError
from ._fisher.forward import Forward
from ._fisher.model_state import differentiable
from ._merge.states import State
from ._objective.groups import GROUPS, group_names
from ._objective.norms import Difference, Norms, compare, norms
from ._objective.states import Carrier, Model, Tensors, carrier_of
from ._objective.sums import summed_gradient, zeros
from ._objective.tasks import Task, check_examples, read_tasks
from .merging import Fisher


@dataclass(frozen=True)
class Mismatch:
    """Norms of a mismatch, of its part that the Fishers explain and of the rest.

    `explained` and `rest` are None without Fishers.
    """

    mismatch: Norms
    explained: Norms | None = None
    rest: Norms | None = None


@dataclass(frozen=True)
class CandidateMismatch:
    """Mismatch of one candidate: in total, by task and by group of parameters.

    `groups` has the total's norms by group, or nothing for groups="global".
    """

    total: Mismatch
    tasks: dict[str, Mismatch]
    groups: dict[str, Mismatch] = field(default_factory=dict)


@dataclass(frozen=True)
class MismatchResult(Mapping[str, CandidateMismatch]):
    """Result of `mismatch`: a mapping from the candidates' names; prints as a table.

    Attributes:
        candidates: the mismatch of each.
        zero_curvature: number of coordinates with H_0 = 0, which the norms in the
            inverse of H_0 leave out; None without a base Fisher.
        parameters: number of coordinates.
        examples: numbers of examples used, by task.
        target: both sides of the identity at the target, theta* - theta_TA and
            -m(theta*) / H_0, over the coordinates with H_0 > 0; None without a target.
    """

    candidates: dict[str, CandidateMismatch]
    parameters: int
    examples: dict[str, int]
    zero_curvature: int | None = None
    target: Difference | None = None

    def __getitem__(self, name: str) -> CandidateMismatch:
        return self.candidates[name]

    def __iter__(self):
        return iter(self.candidates)

    def __len__(self) -> int:
        return len(self.candidates)

    def to_json(self) -> str:
        """All numbers as JSON text."""
        return json.dumps(asdict(self), indent=2)

    def table(self) -> str:
        """The norms as text: a row per candidate, task and group."""
        rows = [["model", "part", "mismatch", "explained", "rest"]]
        if self.zero_curvature is not None:
            rows[0] += ["mismatch, 1/H0", "rest, 1/H0"]
        for name, found in self.candidates.items():
            parts = {"total": found.total, **found.tasks, **found.groups}
            rows += [[name, part, *self._cells(x)] for part, x in parts.items()]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = []
        for row in rows:
            cells = [
                cell.ljust(width) if place < 2 else cell.rjust(width)
                for place, (cell, width) in enumerate(zip(row, widths, strict=True))
            ]
            lines.append("  ".join(cells).rstrip())
        return "\n".join(lines)

    def _cells(self, found: Mismatch) -> list[str]:
        norms = [found.mismatch, found.explained, found.rest]
        cells = ["-" if n is None else f"{n.l2:.4g}" for n in norms]
        if self.zero_curvature is not None:
            for n in (found.mismatch, found.rest):
                cells.append("-" if n is None else f"{n.h0_inverse:.4g}")
        return cells

    def __str__(self) -> str:
        return self.table()


def mismatch(
    base: Model,
    experts: Sequence[Model],
    data: Sequence[Iterable],
    candidates: Mapping[str, Model] | Sequence[Model],
    *,
    weights: float | Sequence[float] = 1.0,
    fishers: Sequence[Fisher] | None = None,
    base_fisher: Fisher | None = None,
    target: Model | None = None,
    groups: str = "global",
    loss: str | Callable = "auto",
    limit: int | None = None,
    seed: int = 0,
    dtype: torch.dtype | None = None,
    collator: Callable | None = None,
    batch_size: int = 16,
    num_examples: Sequence[int] | None = None,
    progress: Callable[[int, int | None, str], None] | None = None,
) -> MismatchResult:
    """Computes the gradient mismatch of merged models, from training data only.

    m(theta) = sum_t m_t, m_t = a_t [grad l_t(theta) - grad l_t(theta_t)], where l_t is
    N_t times the mean loss over the used examples of task t. The Fishers explain
    a_t H_t (theta - theta_t) of m_t; the rest is what gradient matching leaves. Reports
    2-norms, and norms in the inverse of H_0 = N_0 F_0, sqrt(sum m^2 / H_0) over the
    coordinates with H_0 > 0, with the share of |m|^2 that this leaves out.

    Memory: T + 4 tensors in the parameters' shapes for T experts, other than those that
    the caller passes.

    Args:
        base: theta_0, a module; or any model where another one is a module. The module
            runs with the weights of each model, and has its own again afterwards.
        experts: theta_t, a list of models: modules, state dicts or paths of
            checkpoints, with the base's names and shapes.
        data: one data set per expert, as `merganser.fisher` takes them, with labels.
        candidates: models by name, or a list of models.
        weights: a_t, one per expert or one for all.
        fishers: one per expert, a FisherResult or the path of its file. The Fisher of
            an expert that is given as a path must be of its weights.
        base_fisher: F_0.
        target: theta*, usually trained jointly. Adds the two sides of
            theta* - theta_TA = -m(theta*) / H_0, with theta_TA = theta_0 + sum_t a_t
            (theta_t - theta_0): equal where the base's loss is quadratic with the
            diagonal Hessian H_0. Needs base_fisher.
        groups: "global", "block" (attention and MLP of each layer, embeddings, head,
            rest) or "tensor": adds the total's norms by group.
        loss: as in `merganser.fisher`.
        limit: max number of examples per task: a random subset, as in
            `merganser.fisher`; it is held in memory.
        seed: random seed for that subset.
        dtype: bfloat16 or float16: run under autocast to this dtype.
        collator: combines a list of `batch_size` examples of `data` into a batch.
        batch_size: examples per batch, with `collator`.
        num_examples: N_t, one per expert; by default found from the data.
        progress: called after each batch with the number of examples done, the total
            (None: unknown) and a text that names the model and the data.

    Returns:
        A MismatchResult. Its `str` is a table.

    Raises:
        InputError: arguments, models or data that do not fit, or a gradient that is not
            finite; says which.

    Source: Daheim et al., arXiv 2310.12808, section 3; docs/method.md, section 6.
    """
    check_choice("groups", groups, GROUPS)
    check_autocast(dtype)
    if target is not None and base_fisher is None:
        raise InputError("target needs base_fisher, as the identity divides by H_0")
    named = _named(candidates)
    carrier = Carrier(carrier_of(base, *experts))
    with differentiable(carrier.module), carrier:
        origin = carrier.read(base, "base")
        tasks = read_tasks(
            carrier,
            origin,
            experts,
            data,
            weights,
            fishers,
            keep=False,
            limit=limit,
            seed=seed,
            collator=collator,
            batch_size=batch_size,
            num_examples=num_examples,
        )
        models = {name: carrier.read(m, name) for name, m in named.items()}
        h0 = None
        if base_fisher is not None:
            others = [task.expert for task in tasks]
            h0 = carrier.diagonal(base_fisher, "base_fisher", base, origin, others)
        goal = None if target is None else carrier.read(target, "target")
        forward = Forward(carrier.module, loss, dtype)
        for task in tasks:
            check_examples(task, task.examples.read(), forward, "mismatch")
        run = _Run(carrier, origin, tasks, h0, forward, progress)
        found = {n: run.measure(n, state, groups) for n, state in models.items()}
        identity = None if goal is None else run.identity(goal)
        zero = run.count_zero_curvature()
    return MismatchResult(
        found,
        sum(p.numel() for p in carrier.parameters.values()),
        {task.name: task.examples.used for task in tasks},
        zero,
        identity,
    )


class _Run:
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

    def count_zero_curvature(self) -> int | None:
        if self._h0 is None:
            return None
        count = 0
        for name, p in self._carrier.parameters.items():
            h0 = self._h0.get(name)
            count += p.numel() if h0 is None else int((h0 == 0).sum())
        return count

    def measure(self, label: str, state: State, groups: str) -> CandidateMismatch:
        whole = group_names(self._carrier.parameters, "global")
        total = zeros(self._carrier.parameters)
        tasks = {}
        for t, task in enumerate(self._tasks):
            part = self._mismatch(t, label, state)
            for name, x in part.items():
                total[name] += x
            tasks[task.name] = self._norms(part, [task], state, whole)["all"]
        in_total = self._norms(total, self._tasks, state, whole)["all"]
        if groups == "global":
            return CandidateMismatch(in_total, tasks)
        group_of = group_names(self._carrier.parameters, groups)
        by_group = self._norms(total, self._tasks, state, group_of)
        return CandidateMismatch(in_total, tasks, by_group)

    def identity(self, goal: State) -> Difference:
        total = zeros(self._carrier.parameters)
        for t in range(len(self._tasks)):
            for name, x in self._mismatch(t, "target", goal).items():
                total[name] += x
        return compare(self._sides(total, goal))

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


def _named(candidates: Any) -> dict[str, Model]:
    """Candidates by name."""
    if isinstance(candidates, Mapping):
        if any(isinstance(value, Tensor) for value in candidates.values()):
            raise InputError(
                "candidates must be models by name or a list, not one model"
            )
        named = dict(candidates)
    elif isinstance(candidates, list | tuple):
        named = {f"candidates[{i}]": model for i, model in enumerate(candidates)}
    else:
        given = type(candidates).__name__
        raise InputError(f"candidates must be models by name or a list, not {given}")
    if not named:
        raise InputError("candidates must have at least one model")
    return named
