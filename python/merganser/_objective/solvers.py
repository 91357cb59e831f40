"""Solvers of the joint objective. Each changes the parameters in place."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from .._fisher.squares import PerExampleSquares
from .._fisher.subspace_sums import SubspaceSums
from .joint import JointObjective, are_finite, move
from .states import Tensors
from .sums import zeros

_TRIALS = 12  # of a line search
# Off-diagonals of an estimated matrix are shrunk by this factor: with few examples its
# rank is small, and unshrunk solutions explode.
SHRINK = 0.9
FOLDS = 5  # parts of the examples, to choose a damping
DAMPINGS = [0.01 * 10 ** (i / 2) for i in range(11)]  # from 0.01 to 1000


class NoStep(Exception):
    """Raised where no step lowers the objective; the parameters are as before."""

    def __init__(self, reason: str, rejected: int = 0, not_finite: int = 0):
        super().__init__(reason)
        self.rejected = rejected
        self.not_finite = not_finite


class NotFinite(Exception):
    """Raised after a step to values that are not finite.

    found: what the report says about the step otherwise.
    """

    def __init__(self, found: dict[str, Any]):
        super().__init__()
        self.found = found


class Solver(Protocol):
    steps: int  # max number

    def after(self, step: int) -> int:
        """The step to take next, and to evaluate, after another one."""
        ...

    def step(self, number: int) -> dict[str, Any]:
        """Takes the steps up to a number; returns what the report says about them."""
        ...

    def reject(self) -> bool:
        """Called after a step to values that are not finite was undone. False: the
        next step would be the same."""
        ...

    def state(self) -> dict[str, Any]:
        """Values that the next step depends on, other than the parameters."""
        ...

    def load(self, state: dict[str, Any]) -> None: ...


class Memoryless:
    """A solver whose steps depend on the parameters only, and are all evaluated."""

    def after(self, step: int) -> int:
        return step + 1

    def reject(self) -> bool:
        return False

    def state(self) -> dict[str, Any]:
        return {}

    def load(self, state: dict[str, Any]) -> None:
        """Has nothing to restore."""


class LineSearch:
    """Tries steps until one lowers the objective."""

    def __init__(self, objective: JointObjective):
        self._objective = objective

    def take(self, trials: Iterator[tuple[dict[str, Any], Tensors]]) -> dict[str, Any]:
        parameters = self._objective.parameters
        start = {name: p.detach().clone() for name, p in parameters.items()}
        before = self._objective.value()
        rejected = not_finite = 0
        for settings, step in trials:
            move(parameters, start, step)
            value = self._objective.value()
            if value < before:
                found = {"objective": value, **settings, "rejected": rejected}
                return found | ({"not_finite": not_finite} if not_finite else {})
            rejected += 1
            not_finite += not math.isfinite(value)
        move(parameters, start, {n: torch.zeros_like(x) for n, x in start.items()})
        raise NoStep("no step lowers the objective", rejected, not_finite)


class Newton(Memoryless):
    """theta -= eta (D + lambda)^-1 grad J with D = H_0 + sum_t a_t H_t, diagonal.

    lambda is `damping` times an upper quantile of D (times its max, if that is 0), and
    is raised until a step lowers the objective.
    """

    QUANTILE = 0.999

    def __init__(
        self,
        objective: JointObjective,
        curvature: Callable[[], Tensors],
        damping: float,
        lr: float,
        refresh: bool,
        steps: int,
    ):
        self.steps = steps
        self._objective = objective
        self._curvature = curvature
        self._damping = damping
        self._lr = lr
        self._refresh = refresh
        self._diagonal: Tensors | None = None
        self._search = LineSearch(objective)

    def step(self, number: int) -> dict[str, Any]:
        if self._diagonal is None or self._refresh:
            self._diagonal = self._curvature()
        gradient = self._objective.gradient()
        if not are_finite(gradient):
            raise NoStep("the gradient is not finite")
        return self._search.take(self._trials(self._diagonal, gradient))

    def _trials(
        self, diagonal: Tensors, gradient: Tensors
    ) -> Iterator[tuple[dict[str, Any], Tensors]]:
        scale = upper_quantile(diagonal, self.QUANTILE) or upper_quantile(diagonal, 1)
        damping = self._damping
        for _ in range(_TRIALS):
            step = {}
            for name, g in gradient.items():
                d = diagonal[name] + damping * scale
                # Coordinates without curvature and damping stay unchanged.
                step[name] = torch.where(d > 0, -self._lr * g / d, 0)
            yield {"damping": damping, "lr": self._lr}, step
            damping = raised(damping)


Sums = tuple[Tensor, Tensor, int]  # of gradients and Fishers, and their count


class Quadratic(NamedTuple):
    """g w + 1/2 w C w"""

    gradient: Tensor
    matrix: Tensor

    def __call__(self, w: Tensor) -> float:
        return float(self.gradient @ w + w @ self.matrix @ w / 2)


class Subspace(Memoryless):
    """Gauss-Newton in the span of the columns of P, with all off-diagonals.

    Solves (C + damping diag C) w = -P^T grad J with C = P^T H_0 P + sum_t a_t N_t
    P^T F_t P, and adds lr P w. By default the damping is the one of a list with which
    w, found without a part of the examples, lowers the model of that part most.
    """

    def __init__(
        self,
        objective: JointObjective,
        statistics: SubspaceSums,
        damping: float | None,
        shrink: float,
        lr: float,
        steps: int,
    ):
        """statistics: with FOLDS parts. damping: None to choose it at each step."""
        self.steps = steps
        self._objective = objective
        self._statistics = statistics
        self._columns = statistics.columns
        self._damping = damping
        self._shrink = shrink
        self._lr = lr
        self._proximal = self._columns.quadratic(objective.proximal.h0)
        self._search = LineSearch(objective)

    def step(self, number: int) -> dict[str, Any]:
        parts = self._measure()
        proximal = Quadratic(
            self._columns.inner(self._objective.proximal.gradient()), self._proximal
        )
        whole = self._model(proximal, parts, range(FOLDS))
        if not all(bool(x.isfinite().all()) for x in whole):
            raise NoStep("the gradient is not finite")
        damping = self._damping
        if damping is None:
            damping = self._validated(proximal, parts)
            if damping == DAMPINGS[-1]:
                raise NoStep("cross-validation finds no better step")
        return self._search.take(self._trials(whole, damping))

    def _measure(self) -> list[list[Sums]]:
        """Sums at the current weights, by task and part of the examples."""
        found = []
        for term in self._objective.terms:
            self._statistics.reset()
            for batch in self._objective.read(term):
                self._statistics.add(self._objective.forward, batch)
            sums = [self._statistics.of_fold(i) for i in range(FOLDS)]
            found.append([(g.clone(), f.clone(), n) for g, f, n in sums])
        return found

    def _model(
        self, proximal: Quadratic, parts: list[list[Sums]], folds: Iterable[int]
    ) -> Quadratic:
        """The model of J in the span, from some parts of the examples."""
        gradient, matrix = proximal.gradient.clone(), proximal.matrix.clone()
        for term, sums in zip(self._objective.terms, parts, strict=True):
            some = [sums[i] for i in folds]
            scale = term.weight / max(1, sum(n for _, _, n in some))
            gradient += scale * torch.stack([g for g, _, _ in some]).sum(0)
            fisher = torch.stack([f for _, f, _ in some]).sum(0)
            matrix += scale * shrunk(fisher, self._shrink)
        return Quadratic(gradient, matrix)

    def _validated(self, proximal: Quadratic, parts: list[list[Sums]]) -> float:
        """The damping whose steps, found without each part of the examples in turn,
        lower the model of that part most."""
        totals = dict.fromkeys(DAMPINGS, 0.0)
        for fold in range(FOLDS):
            others = [i for i in range(FOLDS) if i != fold]
            found_from = self._model(proximal, parts, others)
            judged_by = self._model(proximal, parts, [fold])
            for damping in DAMPINGS:
                w = solve(found_from.matrix, -found_from.gradient, damping)
                totals[damping] += judged_by(w)
        return min(totals, key=lambda damping: totals[damping])

    def _trials(
        self, model: Quadratic, damping: float
    ) -> Iterator[tuple[dict[str, Any], Tensors]]:
        eta = self._lr
        for _ in range(_TRIALS):
            w = solve(model.matrix, -model.gradient, damping) * eta
            yield (
                {"damping": damping, "lr": eta, "weights": w.tolist()},
                {n: self._columns.combine(n, w) for n in self._columns.stacked},
            )
            damping, eta = raised(damping), eta / 2


def raised(damping: float) -> float:
    """The damping to try after a step that did not lower the objective."""
    return max(4 * damping, 1e-3)


def shrunk(matrix: Tensor, factor: float) -> Tensor:
    """Off-diagonals times a factor."""
    return factor * matrix + (1 - factor) * matrix.diagonal().diag()


def solve(matrix: Tensor, right: Tensor, damping: float) -> Tensor:
    """Solves (matrix + damping diag) w = right; columns without curvature get 0.

    Scaled to a unit diagonal, as columns differ in size by orders of magnitude.
    """
    diagonal = matrix.diagonal()
    used = diagonal > 0
    scale = torch.where(used, diagonal, 1.0).sqrt()
    scaled = matrix / scale[:, None] / scale
    scaled[~used] = scaled[:, ~used] = 0
    scaled += torch.where(used, damping, 1.0).to(scaled).diag()
    values, vectors = torch.linalg.eigh(scaled)
    # Directions without curvature, to rounding, are left alone.
    kept = values > values.max() * 1e-12
    inverse = torch.where(kept, 1 / values.where(kept, 1.0), 0.0)
    w = vectors @ (inverse * (vectors.T @ (right.where(used, 0.0) / scale)))
    return w / scale


def curvature(
    objective: JointObjective,
    h0: Tensors | None,
    fishers: list[Tensors],
    weights: list[float],
) -> Tensors:
    """H_0 + sum_t a_t H_t from given Fishers."""
    total = zeros(objective.parameters)
    for weight, h in zip([1.0, *weights], [h0 or {}, *fishers], strict=True):
        for name, x in h.items():
            total[name] += weight * x
    return total


def curvature_here(objective: JointObjective, model, h0: Tensors | None) -> Tensors:
    """H_0 + sum_t a_t H_t with exact Fishers at the current weights."""
    total = zeros(objective.parameters)
    loss = objective.forward
    for term in objective.terms:
        squares = PerExampleSquares(model)
        for batch in objective.read(term):
            squares.add(loss, batch, lambda z, b: loss.loss.exact(z, b))
        for name, x in squares.sums.items():
            total[name] += term.scale * x
    for name, x in (h0 or {}).items():
        total[name] += x
    return total


def upper_quantile(tensors: Tensors, share: float) -> float:
    """The quantile of all values together; exact, and unlike torch.quantile for any
    number of values."""
    values = torch.cat([x.flatten() for x in tensors.values()])
    place = max(1, math.ceil(share * values.numel()))
    return float(values.kthvalue(place).values)
