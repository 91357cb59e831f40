"""Steps from a merged model towards the optimum of the joint objective."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ._C import InputError
from ._common.arguments import check_autocast, check_choice, check_count, check_number
from ._fisher.forward import Forward
from ._fisher.model_state import differentiable
from ._objective.checkpoint import Checkpoint
from ._objective.groups import GROUPS
from ._objective.held_out import add_predictions, count_held_out
from ._objective.problem import Problem, Settings
from ._objective.run import Run
from ._objective.solvers import SHRINK
from ._objective.states import Carrier, Model, carrier_of, load_fisher
from ._objective.tasks import check_examples, read_tasks
from .merging import Fisher

SOLVERS = ("subspace", "newton", "adamw")
TARGETS = ("labels", "predictions")
# The options of each solver that not all take, or not with the same default.
_DEFAULTS: dict[str, dict[str, Any]] = {
    "subspace": {
        "steps": 4,
        "lr": 1.0,
        "damping": None,
        "groups": "block",
        "shrink": SHRINK,
    },
    "newton": {"steps": 10, "lr": 1.0, "damping": 1.0},
    "adamw": {"steps": 60, "lr": 1e-5},
}


@dataclass(eq=False, repr=False)
class RefineResult:
    """The refined model.

    Attributes:
        state_dict: its tensors, for load_state_dict.
        report: solver; objective, held-out objective and held-out loss, without the
            proximal term, of each step (of adamw each fifth and the last); which step
            was kept; `completed` (False after
            Ctrl-C); `stopped` (why the run took no further step, or None); examples
            used; seconds; only numbers, strings, lists and dicts.
    """

    state_dict: dict[str, Tensor]
    report: dict[str, Any]

    def save_report(self, path: str | os.PathLike) -> None:
        """Writes the report as JSON."""
        text = json.dumps(self.report, indent=2)
        try:
            Path(path).write_text(text + "\n", encoding="utf-8")
        except OSError as error:
            raise InputError(f"{path}: cannot be written: {error.strerror}") from None

    def plot(self, path: str | os.PathLike) -> None:
        """Plots the objectives over the steps to an image file; needs matplotlib."""
        from .report import plot_refinement

        plot_refinement(self.report, path)

    def __repr__(self) -> str:
        steps = self.report["steps"]
        return (
            f"RefineResult({self.report['solver']}, {steps[-1]['step']} steps, kept "
            f"step {self.report['kept_step']})"
        )


def refine(
    model: Model,
    base: Model,
    experts: Sequence[Model],
    data: Sequence[Iterable],
    *,
    weights: float | Sequence[float] = 1.0,
    fishers: Sequence[Fisher] | None = None,
    base_fisher: Fisher | None = None,
    solver: str = "subspace",
    targets: str = "labels",
    groups: str | None = None,
    steps: int | None = None,
    lr: float | None = None,
    damping: float | None = None,
    shrink: float | None = None,
    refresh: bool = False,
    held_out: float = 0.2,
    limit: int | None = None,
    seed: int = 0,
    loss: str | Callable = "auto",
    dtype: torch.dtype | None = None,
    collator: Callable | None = None,
    batch_size: int = 32,
    num_examples: Sequence[int] | None = None,
    checkpoint: str | os.PathLike | None = None,
    progress: Callable[[int, int | None, str], None] | None = None,
) -> RefineResult:
    """Takes steps from a merged model towards the optimum of the joint objective.

    J(theta) = sum_t a_t N_t/n_t sum_i l_ti(theta) + 1/2 |theta - theta_0|^2_H0, on a
    few examples of each task. The step with the best objective on examples that were
    held out is kept, the start included. Steps whose values are not finite are
    rejected. After Ctrl-C the result is the best step so far.

    Args:
        model: where to start: usually the result of `merganser.merge`.
        base: theta_0. One of `base` and `model` must be a module, which runs with the
            weights of each model and has its own again afterwards.
        experts: theta_t, a list of models: modules, state dicts or paths of
            checkpoints.
        data: one data set per expert, as `merganser.fisher` takes them. All examples
            used are held in memory: see `limit`.
        weights: a_t, one per expert or one for all; positive.
        fishers: one per expert, for "newton" without `refresh`; a FisherResult or the
            path of its file.
        base_fisher: F_0, with H_0 = N_0 F_0; without it J has no proximal term.
        solver: "subspace" (Gauss-Newton in the span of the task vectors, split by
            `groups`, with exact off-diagonals), "newton" (damped, with the diagonal
            H_0 + sum_t a_t H_t) or "adamw" (mini-batches).
        targets: "labels" of the data, or the experts' "predictions" on the same
            inputs, which need no labels.
        groups: for "subspace": "global", "block" (attention and MLP of each layer,
            embeddings, head, rest) or "tensor". None: "block".
        steps: max number of steps; "adamw" evaluates the objective after every fifth.
            None: 4 (subspace), 10 (newton), 60 (adamw).
        lr: learning rate of adamw (None: 1e-5), step size of newton and first one of
            subspace (None: 1).
        damping: for "subspace": multiple of the curvature's diagonal that is added to
            it, and is raised until a step lowers J; None: chosen by cross-validation at
            each step, without more passes. For "newton": multiple of the diagonal's
            0.999 quantile, added to the diagonal, and raised likewise; None: 1.
        shrink: for "subspace": factor of the off-diagonals of the estimated Fisher.
            None: 0.9.
        refresh: for "newton": estimate the Fishers again at the start of each step.
        held_out: share of the examples that no step sees: between 0 and 1 (exclusive),
            at least one example of each task. The others must be at least as many as
            the classes.
        limit: max number of examples per task: a random subset, as in
            `merganser.fisher`.
        seed: random seed for that subset, for the examples held out and for the order
            of mini-batches.
        loss: as in `merganser.fisher`.
        dtype: bfloat16 or float16: run under autocast to this dtype.
        collator: combines a list of `batch_size` examples of `data` into a batch.
        batch_size: examples per batch, with `collator`, and in total per mini-batch of
            adamw.
        num_examples: N_t, one per expert; by default that of the expert's Fisher, or of
            the data without one.
        checkpoint: file to which the state is saved after each step. If it exists, the
            run resumes from it, with the same result; `steps` may be larger than
            before. It is kept after the run.
        progress: called after each step that the report has with its number, the max
            number and a text; and in each pass over examples after every batch, with
            the number of the last such step and the examples done in the text.

    Memory in addition to the models that the caller passes, in tensors of the
    parameters' shapes, with `base_fisher`: T + 6 for "subspace" with T experts, 7 for
    "adamw", 11 for "newton" with `refresh`; without, it holds the experts' Fishers.
    Parameters in bfloat16 or float16 have one more for "adamw", which adds up its
    steps in float32.

    Returns:
        A RefineResult: `state_dict`, `report` and `plot`.

    Raises:
        InputError: arguments, models or data that do not fit; says which.

    Source: Daheim et al., arXiv 2310.12808, section 3; docs/method.md, section 2.
    """
    check_choice("solver", solver, SOLVERS)
    groups = _option("groups", groups, solver)
    max_steps: int = _option("steps", steps, solver)
    lr = _option("lr", lr, solver)
    damping = _option("damping", damping, solver)
    shrink = _option("shrink", shrink, solver)
    _check(solver, targets, groups, fishers, refresh, max_steps)
    check_count("seed", seed, minimum=0)
    check_count("batch_size", batch_size)
    check_autocast(dtype)
    settings = Settings(
        solver,
        targets,
        groups,
        lr=check_number("lr", lr),
        damping=None if damping is None else check_number("damping", damping),
        shrink=None if shrink is None else check_number("shrink", shrink, 1.0),
        refresh=refresh,
        held_out=_share(held_out),
        batch_size=batch_size,
        seed=seed,
        dtype=str(dtype),
    )
    carrier = Carrier(carrier_of(base, model))
    started = time.monotonic()
    with differentiable(carrier.module), carrier:
        origin = carrier.read(base, "base")
        start = carrier.read(model, "model")
        tasks = read_tasks(
            carrier,
            origin,
            experts,
            data,
            weights,
            fishers,
            keep=True,
            limit=limit,
            seed=seed,
            collator=collator,
            batch_size=batch_size,
            num_examples=num_examples,
        )
        h0 = None
        if base_fisher is not None:
            others = [task.expert for task in tasks]
            fisher = load_fisher(base_fisher, "base_fisher")
            h0 = carrier.diagonal(fisher, "base_fisher", base, origin, others)
        forward = Forward(carrier.module, loss, dtype)
        labels = "targets='labels'" if targets == "labels" else None
        for task in tasks:
            held = count_held_out(task, settings.held_out)
            check_examples(task, task.examples.kept, forward, labels, held)
        if targets == "predictions":
            add_predictions(carrier, forward, tasks)
        carrier.load(start)
        problem = Problem(carrier, forward, tasks, origin, h0, settings)
        file = None
        if checkpoint is not None:
            file = Checkpoint(checkpoint, problem.fingerprint(start, loss))
        run = Run(
            carrier,
            problem.solver(max_steps),
            problem.train,
            problem.held_out,
            file,
            progress,
        )
        run.go()
        carrier.restore(run.best)
        refined = carrier.state()
        report = problem.report(run)
    report["seconds"] = round(time.monotonic() - started, 3)
    return RefineResult(refined, report)


def _option(name: str, value: Any, solver: str) -> Any:
    """The value, or the solver's default; None: the solver has no such option."""
    defaults = _DEFAULTS[solver]
    if value is None:
        return defaults.get(name)
    if name not in defaults:
        takers = [other for other in SOLVERS if name in _DEFAULTS[other]]
        raise InputError(f"{name} applies to {' and '.join(takers)}, not to {solver}")
    return value


def _check(solver, targets, groups, fishers, refresh, steps) -> None:
    check_choice("targets", targets, TARGETS)
    if groups is not None:
        check_choice("groups", groups, GROUPS)
    check_count("steps", steps)
    if solver == "newton" and fishers is None and not refresh:
        raise InputError("solver='newton' needs fishers, or refresh=True")
    if refresh and solver != "newton":
        raise InputError(f"refresh applies to newton, not to {solver}")


def _share(held_out: Any) -> float:
    if not isinstance(held_out, Real) or not 0 < float(held_out) < 1:
        raise InputError(
            f"held_out must be between 0 and 1 (exclusive), got {held_out!r}"
        )
    return float(held_out)
