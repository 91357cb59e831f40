"""Norms of vectors that have a tensor per parameter."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from .._C import InputError
from .states import Tensors

Vector = Callable[[str], Tensor]  # the tensor of a parameter


@dataclass(frozen=True)
class Norms:
    """Norms of a vector x.

    Attributes:
        norm: |x|.
        h0_inverse_norm: sqrt(sum x^2 / H_0) over the coordinates with H_0 > 0, to
            rounding; None without a base Fisher.
        share_without_h0: share of |x|^2 at the other coordinates.
    """

    norm: float
    h0_inverse_norm: float | None = None
    share_without_h0: float | None = None


@dataclass(frozen=True)
class Difference:
    """Norms of two vectors, of their difference, and their cosine: 0 where one is 0."""

    left_norm: float
    right_norm: float
    difference_norm: float
    cosine: float


def without_rounding(h0: Tensors) -> Tensors:
    """H_0 with 0 where it is at most 1e-12 times its mean: squares of rounding errors,
    such as those of key biases, on which no output depends."""
    total = sum(float(x.sum(dtype=torch.float64)) for x in h0.values())
    smallest = 1e-12 * total / max(1, sum(x.numel() for x in h0.values()))
    return {name: x.masked_fill(x <= smallest, 0.0) for name, x in h0.items()}


def norms(
    vector: Vector, group_of: Mapping[str, str], h0: Tensors | None
) -> dict[str, Norms]:
    """Norms by group of parameters."""
    sums: dict[str, list[float]] = {}
    for name, group in group_of.items():
        squares = vector(name).double().square()
        total = sums.setdefault(group, [0.0, 0.0, 0.0])
        total[0] += float(squares.sum())
        if h0 is not None:
            inside, outside = _split(squares, h0.get(name))
            total[1] += inside
            total[2] += outside
    return {
        group: Norms(_root(square))
        if h0 is None
        else Norms(_root(square), _root(inside), outside / square if square else 0.0)
        for group, (square, inside, outside) in sums.items()
    }


def _split(squares: Tensor, h0: Tensor | None) -> tuple[float, float]:
    """Sum of squares / H_0 where H_0 > 0, and of squares where it is 0."""
    if h0 is None:
        return 0.0, float(squares.sum())
    positive = h0 > 0
    inverse = squares[positive] / h0[positive].double()
    return float(inverse.sum()), float(squares[~positive].sum())


def compare(pairs: Iterator[tuple[Tensor, Tensor]]) -> Difference:
    """Compares two vectors, given by pairs of tensors."""
    sums = torch.zeros(4, dtype=torch.float64)
    for left, right in pairs:
        a, b = left.double().flatten(), right.double().flatten()
        d = a - b
        sums += torch.stack([a @ a, b @ b, d @ d, a @ b]).cpu()
    aa, bb, dd, ab = sums.tolist()
    left, right = _root(aa), _root(bb)
    length = left * right
    cosine = ab / length if length else 0.0
    return Difference(left, right, _root(dd), cosine)


def _root(square: float) -> float:
    """A norm from its square; the gradients and Fishers in it are finite."""
    if not math.isfinite(square):
        raise InputError(
            "weights overflow float32: the mismatch weighted by them is not finite"
        )
    return math.sqrt(square)
