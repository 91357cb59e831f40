"""What an optimizer's state says of the squared gradients."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor


@dataclass(frozen=True)
class Moments:
    """Moving averages of one parameter's gradient, read when they are called.

    Attributes:
        shape: of the parameter.
        square: v, the average of the squared gradient.
        mean: m, the average of the gradient; None: the optimizer keeps none.
    """

    shape: tuple[int, ...]
    square: Callable[[], Tensor]
    mean: Callable[[], Tensor] | None


@dataclass(frozen=True)
class Deferred:
    """A tensor in a file that is put together when it is read."""

    shape: tuple[int, ...]
    read: Callable[[], Tensor]


class Decay(Protocol):
    """The weights of steps in a moving average that begins with 0."""

    def weights(self, start: int, end: int) -> Tensor:
        """The weights of the squares of steps start + 1 to end in v after step `end`,
        float64. Their sum is 1 less the weight of v after step `start`."""
        ...


@dataclass(frozen=True)
class Exponential:
    """v = beta v + (1 - beta) g^2, as in Adam."""

    beta: float

    def weights(self, start: int, end: int) -> Tensor:
        ages = torch.arange(end - start - 1, -1, -1, dtype=torch.float64)
        return (1 - self.beta) * self.beta**ages


@dataclass(frozen=True)
class Growing:
    """v = b v + (1 - b) g^2 with b = 1 - s^power at step s, as in Adafactor."""

    power: float  # negative

    def weights(self, start: int, end: int) -> Tensor:
        steps = torch.arange(start + 1, end + 1, dtype=torch.float64)
        new = steps**self.power
        kept = torch.cat([(1 - new[1:]).flip(0).cumprod(0).flip(0), new.new_ones(1)])
        return new * kept


@dataclass
class OptimizerState:
    """The state of an optimizer of a whole model.

    Attributes:
        path: file or directory.
        optimizer: kind of the optimizer.
        moments: by parameter: names, or the numbers 0, 1, ... in the groups' order.
        groups: the numbers or names in each parameter group; None: unknown.
        step: number of steps; None: unknown.
        decay: of the squares; None: unknown.
        beta1: of the mean; None: unknown, or no mean.
        notes: sentences for the metadata.
    """

    path: Path
    optimizer: str
    moments: dict
    groups: list[list] | None = None
    step: int | None = None
    decay: Decay | None = None
    beta1: float | None = None
    notes: list[str] = field(default_factory=list)
