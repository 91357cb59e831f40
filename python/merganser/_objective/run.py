"""The steps of a refinement: evaluated, kept if they are better, and saved."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .._C import InputError
from .checkpoint import Checkpoint
from .joint import JointObjective, are_finite
from .solvers import NoStep, NotFinite, Solver
from .states import Carrier, Tensors


@dataclass(frozen=True)
class _Trace:
    """The steps so far; replaced at once, so that Ctrl-C finds one that fits."""

    steps: list[dict[str, Any]]  # those evaluated
    kept: int  # place of the best step
    best: Tensors  # its parameters


class Run:
    """Takes the steps of a solver, and keeps the best one, the start included."""

    def __init__(
        self,
        carrier: Carrier,
        solver: Solver,
        train: JointObjective,
        held_out: JointObjective,
        checkpoint: Checkpoint | None,
        progress: Callable[[int, int | None, str], None] | None,
    ):
        """held_out: judges the steps."""
        self._carrier = carrier
        self._solver = solver
        self._train = train
        self._held_out = held_out
        self._checkpoint = checkpoint
        self._progress = progress
        if progress is not None:
            train.after_batch = self._show_examples
            held_out.after_batch = self._show_examples
        self._trace = _Trace([], 0, carrier.snapshot())
        self.completed = True  # False: interrupted
        self.stopped: str | None = None  # why no further step was taken
        self.resumed_after: int | None = None

    @property
    def steps(self) -> list[dict[str, Any]]:
        return self._trace.steps

    @property
    def best(self) -> Tensors:
        return self._trace.best

    @property
    def kept_step(self) -> int:
        return self.steps[self._trace.kept]["step"]

    @property
    def _last(self) -> int:
        return self.steps[-1]["step"]

    def go(self) -> None:
        """After Ctrl-C, `best` is the best of the completed steps."""
        try:
            self._begin()
            while self._last < self._solver.steps and not self.stopped:
                self._take(self._solver.after(self._last))
        except KeyboardInterrupt:
            if not self.steps:
                raise
            self.completed = False

    def _begin(self) -> None:
        saved = None if self._checkpoint is None else self._checkpoint.load()
        if saved is not None:
            self._check_steps(saved["steps"][-1]["step"])
            self._carrier.restore(saved["parameters"])
            self._solver.load(saved["solver"])
            best = {n: x.to(self._carrier.device) for n, x in saved["best"].items()}
            self._trace = _Trace(saved["steps"], saved["kept"], best)
            self.stopped = saved["stopped"]
            self.resumed_after = self._last
            return
        start = time.monotonic()
        value = self._train.value()
        held = self._judge()
        if not (math.isfinite(value) and math.isfinite(held["held_out"])):
            raise InputError("the objective of the start is not finite")
        if not are_finite(self._train.gradient()):
            raise InputError(
                "the gradient of the objective of the start is not finite: the model's "
                "gradients, or weights times examples, "
                f"{self._train.total_weight:g} in total, overflow float32"
            )
        self._record(0, {"objective": value}, held, start)

    def _check_steps(self, taken: int) -> None:
        """Refuses a checkpoint of more steps than this run has."""
        assert self._checkpoint is not None  # checked by the caller
        if taken > self._solver.steps:
            raise InputError(
                f"{self._checkpoint.path} is the checkpoint of {taken} steps: expected "
                f"steps of at least {taken}, got {self._solver.steps}; remove it to "
                "start over"
            )

    def _take(self, number: int) -> None:
        start = time.monotonic()
        try:
            found = self._solver.step(number)
            held = self._judge()
            if not math.isfinite(held["held_out"]):
                raise NotFinite(found)
        except NoStep as reason:
            self._stop(number, reason, start)
            return
        except NotFinite as error:
            self._carrier.restore(self.best)
            if not self._solver.reject():
                self.stopped = "the objective is not finite"
            found = {**error.found, "objective": None}
            for count in ("rejected", "not_finite"):  # this step, and its trials
                found[count] = 1 + found.get(count, 0)
            nothing = {"held_out": None, "held_out_loss": None}
            self._record(number, found, nothing, start)
            return
        best = None
        if held["held_out"] < self.steps[self._trace.kept]["held_out"]:
            best = self._carrier.snapshot()
        self._record(number, found, held, start, best)

    def _judge(self) -> dict[str, float]:
        objective, losses = self._held_out.value_and_losses()
        return {"held_out": objective, "held_out_loss": losses}

    def _stop(self, number: int, reason: NoStep, start: float) -> None:
        last = self.steps[-1]
        self.stopped = str(reason)
        found = {"objective": last["objective"], "rejected": reason.rejected}
        if reason.not_finite:
            found["not_finite"] = reason.not_finite
        held = {key: last[key] for key in ("held_out", "held_out_loss")}
        self._record(number, found, held, start)

    def _show_examples(self, done: int, total: int) -> None:
        if self._progress is not None:
            last = self._last if self.steps else 0
            self._progress(last, self._solver.steps, f"{done} of {total} examples")

    def _record(
        self,
        number: int,
        found: dict[str, Any],
        held: dict[str, Any],
        start: float,
        best: Tensors | None = None,
    ) -> None:
        """best: the parameters, if this step is the best one."""
        seconds = round(time.monotonic() - start, 3)
        step = {"step": number, **found, **held, "seconds": seconds}
        last = self._trace
        self._trace = _Trace(
            [*last.steps, step],
            last.kept if best is None else len(last.steps),
            last.best if best is None else best,
        )
        if self._checkpoint is not None:
            state = {
                "parameters": self._carrier.snapshot(),
                "best": self.best,
                "solver": self._solver.state(),
                "steps": self.steps,
                "kept": self._trace.kept,
                "stopped": self.stopped,
            }
            self._checkpoint.save(state)
        if self._progress is not None:
            objective = held["held_out"]
            shown = (
                "not finite"
                if objective is None
                else f"held-out objective {objective:.6g}"
            )
            self._progress(number, self._solver.steps, shown)
