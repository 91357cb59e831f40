"""A refinement's objectives, its solver and its report."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from .._fisher.forward import Forward
from .._fisher.model_state import code_of, hash_of, update_hash
from .._fisher.subspace import Columns
from .._fisher.subspace_sums import SubspaceSums
from .._merge.states import State
from .adamw import AdamW
from .groups import group_names
from .held_out import split
from .joint import JointObjective, Proximal, Term
from .run import Run
from .solvers import FOLDS, Newton, Solver, Subspace, curvature, curvature_here
from .states import Carrier, Differences, Tensors
from .tasks import Task

_FORMAT = 3  # of the saved state


@dataclass(frozen=True)
class Settings:
    """Settings that determine the steps, other than models and data; None for those
    that the solver does not take."""

    solver: str
    targets: str
    groups: str | None
    lr: float
    damping: float | None
    shrink: float | None
    refresh: bool
    held_out: float
    batch_size: int
    seed: int
    dtype: str


class Problem:
    """The joint objective on the examples to train on, and on those held out."""

    def __init__(
        self,
        carrier: Carrier,
        forward: Forward,
        tasks: list[Task],
        origin: State,
        h0: Tensors | None,
        settings: Settings,
    ):
        self._carrier = carrier
        self._tasks = tasks
        self._origin = carrier.parameters_of(origin)
        self._h0 = h0
        self._settings = settings
        seed, share = settings.seed, settings.held_out
        parts = [split(task, share, seed + t) for t, task in enumerate(tasks)]
        proximal = Proximal(carrier.parameters, self._origin, h0)
        self.train, self.held_out = (
            JointObjective(
                carrier.parameters,
                forward,
                [
                    Term(task.total_weight, part[which])
                    for task, part in zip(tasks, parts, strict=True)
                ],
                proximal,
            )
            for which in (0, 1)
        )

    def solver(self, steps: int) -> Solver:
        settings = self._settings
        if settings.solver == "adamw":
            return AdamW(
                self.train, steps, settings.lr, settings.batch_size, settings.seed
            )
        if settings.solver == "newton":
            return Newton(
                self.train,
                self._curvature,
                settings.damping or 0.0,
                settings.lr,
                settings.refresh,
                steps,
            )
        assert settings.groups is not None  # those of subspace
        assert settings.shrink is not None
        return Subspace(
            self.train,
            self._statistics(settings.groups),
            settings.damping,
            settings.shrink,
            settings.lr,
            steps,
        )

    def _curvature(self) -> Tensors:
        if self._settings.refresh:
            return curvature_here(self.train, self._carrier.module, self._h0)
        fishers = [task.h or {} for task in self._tasks]
        weights = [task.weight for task in self._tasks]
        return curvature(self.train, self._h0, fishers, weights)

    def _statistics(self, groups: str) -> SubspaceSums:
        vectors = [
            Differences(self._carrier.parameters_of(task.expert), self._origin)
            for task in self._tasks
        ]
        names = group_names(self._carrier.parameters, groups)
        columns = Columns(self._carrier.parameters, vectors, names)
        forward = self.train.forward
        return SubspaceSums(
            self._carrier.module,
            columns,
            lambda: forward.loss,
            estimator="auto",
            seed=self._settings.seed,
            folds=FOLDS,
        )

    def fingerprint(self, start: State, loss: str | Callable) -> dict[str, Any]:
        """Values that must be equal for a run to resume."""
        found: dict[str, Any] = {"the format": str(_FORMAT)}
        found |= {k: str(v) for k, v in asdict(self._settings).items()}
        found["loss"] = loss if isinstance(loss, str) else code_of(loss)
        found["the model's weights"] = hash_of(start)
        found["the base's weights"] = hash_of(self._origin)
        found["the base's Fisher"] = hash_of(self._h0 or {})
        digest = hashlib.sha256()
        for task in self._tasks:
            digest.update(hash_of(task.expert).encode())
            digest.update(hash_of(task.h or {}).encode())
            digest.update(f"{task.weight} {task.examples.num_examples}".encode())
        found["the experts"] = digest.hexdigest()
        digest = hashlib.sha256()
        for task in self._tasks:
            for batch in task.examples.kept:
                update_hash(digest, batch)
        found["the data"] = digest.hexdigest()
        return found

    def report(self, run: Run) -> dict[str, Any]:
        tasks = []
        for i, task in enumerate(self._tasks):
            trained = self.train.terms[i].count
            tasks.append(
                {
                    "name": task.name,
                    "weight": task.weight,
                    "num_examples": task.examples.num_examples,
                    "num_examples_used": task.examples.used,
                    "num_examples_held_out": task.examples.used - trained,
                }
            )
        return {
            **asdict(self._settings),
            "proximal_term": self._h0 is not None,
            "total_weight": self.train.total_weight,
            "tasks": tasks,
            "steps": run.steps,
            "kept_step": run.kept_step,
            "completed": run.completed,
            "stopped": run.stopped,
            "resumed_after": run.resumed_after,
        }
