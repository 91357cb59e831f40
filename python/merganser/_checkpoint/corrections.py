"""From moving averages of a step's gradient to the mean of squares per example.

With ḡ the mean gradient of n examples, E[ḡ²] = F / n + (1 - 1/n) μ² (docs/method.md,
section 3).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .._C import InputError
from .state import Decay, Exponential, Moments, OptimizerState

# Share of the mean gradient above which most of each value is not the Fisher's.
LARGE_SHARE = 0.5
_ROUNDING = 1e-3  # relative, of sums over many steps
_SMALLEST = torch.finfo(torch.float32).tiny  # below it rounding is not relative


@dataclass(frozen=True)
class Window:
    """Averages over the steps start + 1 to end of one run.

    Attributes:
        last: the moments after step `end`.
        first: those after step `start`; None: start is 0.
        beta1: None: no means.
    """

    last: Mapping[str, Moments]
    first: Mapping[str, Moments] | None
    start: int
    end: int
    decay: Decay
    beta1: float | None

    def describe(self) -> dict[str, Any]:
        """For the metadata of the file."""
        beta2 = self.decay.beta if isinstance(self.decay, Exponential) else None
        return {
            "steps": [self.start, self.end],
            "beta2": beta2,
            "bias_correction": 1 / self.weight,
        }

    @functools.cached_property
    def weight(self) -> float:
        """Sum of the steps' weights in v: 1 - beta2^(end - start) for Adam."""
        return float(self.decay.weights(self.start, self.end).sum())

    @property
    def has_means(self) -> bool:
        return self.beta1 is not None and all(
            moments.mean is not None for moments in self.last.values()
        )

    def square(self, name: str) -> Tensor:
        """The weighted mean of the squares, float64."""
        last = self.last[name].square().double()
        if self.first is None:
            return last / self.weight
        old = (1 - self.weight) * self.first[name].square().double()
        if (last < old * (1 - _ROUNDING) - _SMALLEST).any():
            raise InputError(
                f"{name}: the squares fall faster from step {self.start} to {self.end} "
                "than with gradients of zero; expected two checkpoints of one run"
            )
        return (last - old).clamp_(min=0) / self.weight

    def mean(self, name: str) -> Tensor:
        """The weighted mean of the gradient, float64."""
        weight = float(self._mean_weights.sum())
        last = _read(self.last[name].mean)
        if self.first is not None:
            last -= (1 - weight) * _read(self.first[name].mean)
        return last / weight

    def variance_of_mean(self) -> float:
        """k: the variance of `mean` divided by that of a step's gradient."""
        weights = self._mean_weights
        return float(weights.square().sum() / weights.sum() ** 2)

    def effective_steps(self) -> float:
        """The number of equally weighted steps with the same variance of their mean."""
        weights = self.decay.weights(self.start, self.end)
        return float(weights.sum() ** 2 / weights.square().sum())

    @functools.cached_property
    def _mean_weights(self) -> Tensor:
        assert self.beta1 is not None
        return Exponential(self.beta1).weights(self.start, self.end)


def _read(mean: Callable[[], Tensor] | None) -> Tensor:
    assert mean is not None
    return mean().double()


@dataclass(frozen=True)
class MeanGradient:
    """The part of the squares that is the mean gradient's, in sums over parameters.

    Attributes:
        share: μ² / E[ḡ²].
        factor: of n E[ḡ²] to be n s² + μ², with s² the variance of ḡ.
    """

    share: float
    factor: float

    @classmethod
    def measure(cls, window: Window, examples: float) -> MeanGradient | None:
        """From E[m²] = μ² + k s² and E[ḡ²] = μ² + s²; None: unknown, as after one
        step."""
        if not window.has_means:
            return None
        k = window.variance_of_mean()
        if k > 1 - 1e-9:
            return None
        squares = means = 0.0
        for name in window.last:
            squares += float(window.square(name).sum())
            means += float(window.mean(name).square().sum())
        if squares == 0:
            return None
        mean = min(max((means - k * squares) / (1 - k), 0.0), squares)
        share = mean / squares
        return cls(share, 1 - share + share / examples)


@dataclass(frozen=True)
class Corrections:
    """The factors between the averages of a window and F.

    Attributes:
        batch_size: number n of examples of a step.
        loss_terms: divisor of the sum of their losses; None: n.
        max_grad_norm: of clipping; 0: none.
        clipping: what clipping divided the squares by.
        clipping_steps: number of steps whose norms say so.
        mean: of the gradient; None: unknown.
    """

    batch_size: float
    loss_terms: float | None
    max_grad_norm: float
    clipping: float
    clipping_steps: int
    mean: MeanGradient | None

    @property
    def examples(self) -> float:
        """n / sum c_i^2 for a step's gradient sum c_i g_i."""
        terms = self.batch_size if self.loss_terms is None else self.loss_terms
        return terms**2 / self.batch_size

    @property
    def factor(self) -> float:
        """Of Window.square, which is corrected for the start at 0."""
        mean = 1.0 if self.mean is None else self.mean.factor
        return self.examples * self.clipping * mean

    def notes(self) -> list[str]:
        if self.mean is None:
            return ["the share of the mean gradient is unknown and not corrected"]
        if self.mean.share <= LARGE_SHARE:
            return []
        return [
            f"the mean gradient has {self.mean.share:.0%} of the squares: steps of "
            f"{self.batch_size:.6g} examples are too large for them to be a Fisher; "
            "use merganser.fisher"
        ]

    def describe(self) -> dict[str, Any]:
        """For the metadata of the file."""
        return {
            "batch_size": self.batch_size,
            "loss_terms": self.loss_terms,
            "examples_factor": self.examples,
            "max_grad_norm": self.max_grad_norm,
            "clipping_factor": self.clipping,
            "clipping_steps_logged": self.clipping_steps,
            "mean_gradient_share": None if self.mean is None else self.mean.share,
            "mean_gradient_factor": None if self.mean is None else self.mean.factor,
        }


def check_one_run(first: OptimizerState, last: OptimizerState) -> None:
    if (first.optimizer, first.decay, first.beta1) != (
        last.optimizer,
        last.decay,
        last.beta1,
    ):
        raise InputError(
            f"{first.path} and {last.path} have other optimizers; expected two "
            "checkpoints of one run"
        )
    if not isinstance(last.decay, Exponential) or last.notes:
        raise InputError(
            f"{last.path}: {last.optimizer} does not keep the squares whole, so that "
            "the steps between two checkpoints cannot be isolated; pass no start"
        )
    assert first.step is not None and last.step is not None
    if first.step >= last.step:
        raise InputError(
            f"{first.path} is of step {first.step}; expected a checkpoint from before "
            f"step {last.step}"
        )
