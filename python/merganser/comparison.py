"""Differences between two Fishers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape

import torch
from torch import Tensor

from ._C import InputError

COLUMNS = (
    "tensor",
    "elements",
    "relative error",
    "cosine",
    "rank correlation",
    "ratio of means",
)


@dataclass(frozen=True)
class TensorComparison:
    """Differences of a tensor a from its reference b; formulas: `compare_fishers`."""

    name: str
    elements: int
    relative_error: float
    cosine: float
    rank_correlation: float
    ratio_of_means: float

    def _cells(self) -> list[str]:
        return [
            self.name,
            f"{self.elements:,}",
            f"{self.relative_error:.4g}",
            f"{self.cosine:.4f}",
            f"{self.rank_correlation:.4f}",
            f"{self.ratio_of_means:.4g}",
        ]


@dataclass(frozen=True, repr=False)
class FisherComparison:
    """Result of `compare_fishers`; prints as a table, in notebooks as HTML.

    Attributes:
        tensors: one row per tensor.
        total: the row for the elements of all tensors together, named "total".
    """

    tensors: tuple[TensorComparison, ...]
    total: TensorComparison

    def __str__(self) -> str:
        rows = [list(COLUMNS), *(row._cells() for row in (*self.tensors, self.total))]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join(
                cell.rjust(width) if position else cell.ljust(width)
                for position, (cell, width) in enumerate(zip(row, widths, strict=True))
            )
            for row in rows
        ]
        rule = "-" * len(lines[0])
        return "\n".join([lines[0], rule, *lines[1:-1], rule, lines[-1]])

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{name}</th>" for name in COLUMNS)
        body = "".join(_html_row(row, "td") for row in self.tensors)
        foot = _html_row(self.total, "th")
        return (
            f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody>"
            f"<tfoot>{foot}</tfoot></table>"
        )

    def __repr__(self) -> str:
        return (
            f"FisherComparison({len(self.tensors)} tensors, "
            f"relative_error={self.total.relative_error:.4g}, "
            f"cosine={self.total.cosine:.4f}, "
            f"rank_correlation={self.total.rank_correlation:.4f}, "
            f"ratio_of_means={self.total.ratio_of_means:.4g})"
        )


def compare_fishers(
    a: Mapping[str, Tensor], b: Mapping[str, Tensor], *, sort: str = "name"
) -> FisherComparison:
    """Compares a Fisher with a reference, tensor by tensor and in total.

    Over the elements of a tensor, and over those of all tensors together:

        relative error    |a - b|_2 / |b|_2
        cosine            <a, b> / (|a|_2 |b|_2)
        rank correlation  Spearman's: Pearson's correlation of the ranks of a with
                          those of b; tied values have their average rank
        ratio of means    mean(a) / mean(b)

    Scaling a changes only the first and the last. Computes in float64, on the CPU. No
    tensor is skipped: where a formula divides by 0, its value is inf or nan (for a zero
    reference, or the rank correlation of constant values); non-finite elements also
    make it nan or inf. Ranks need a sort, and a few times the memory of a and b.

    Args:
        a: name -> tensor: a FisherResult, its H, or any dict of real tensors.
        b: the reference, with the same names and shapes, in any order.
        sort: order of the rows: "name", or "error": by decreasing relative error, nan
            first.

    Returns:
        A FisherComparison: `tensors`, one row per tensor, and `total`. Its `str` is a
        table.

    Raises:
        InputError: names or shapes differ; names the first such tensor.
    """
    if sort not in ("name", "error"):
        raise InputError(f"sort must be 'name' or 'error', not {sort!r}")
    _check_alike(a, b)
    rows, moments = [], []
    for name in sorted(b):
        x, y = _flat(a[name]), _flat(b[name])
        moments.append(_moments(x, y))
        rows.append(_row(name, moments[-1], rank_correlation(x, y)))
    if sort == "error":
        rows.sort(key=lambda row: _error_order(row.relative_error))
    everything = rank_correlation(
        *(torch.cat([_flat(f[name]) for name in sorted(b)]) for f in (a, b))
    )
    total = _row("total", torch.stack(moments).sum(0), everything)
    return FisherComparison(tuple(rows), total)


def _check_alike(a, b) -> None:
    for label, fisher in (("a", a), ("b", b)):
        if not isinstance(fisher, Mapping):
            raise InputError(
                f"{label} must be a mapping from names to tensors, not "
                f"{type(fisher).__name__}"
            )
        for name, value in fisher.items():
            if not isinstance(value, Tensor) or value.is_complex():
                kind = value.dtype if isinstance(value, Tensor) else type(value)
                raise InputError(f"{label}: {name!r} is {kind}, not a real tensor")
    for name in sorted(a.keys() | b.keys()):
        if name not in a or name not in b:
            present, missing = ("a", "b") if name in a else ("b", "a")
            raise InputError(f"tensor {name!r} is in {present} but not in {missing}")
        if a[name].shape != b[name].shape:
            raise InputError(
                f"tensor {name!r} has shape {list(a[name].shape)} in a and "
                f"{list(b[name].shape)} in b"
            )
    if not b:
        raise InputError("a and b have no tensor to compare")


def _flat(tensor: Tensor) -> Tensor:
    """Flattens a tensor on the CPU, as float32 if it is, else as float64."""
    tensor = tensor.detach().flatten().cpu()
    return tensor if tensor.dtype == torch.float32 else tensor.double()


def _moments(x: Tensor, y: Tensor) -> Tensor:
    """Sums that determine a row, (7,), float64; additive over tensors."""
    x, y = x.double(), y.double()
    difference = x - y
    count = torch.tensor(x.numel(), dtype=torch.float64)
    pairs = [(difference, difference), (x, x), (y, y), (x, y)]
    return torch.stack([count, x.sum(), y.sum(), *(u.dot(v) for u, v in pairs)])


def _row(name: str, moments: Tensor, rank_correlation: float) -> TensorComparison:
    # Tensors, not floats: they divide by zero as IEEE 754 specifies.
    count, sum_x, sum_y, error, xx, yy, xy = moments
    return TensorComparison(
        name,
        elements=int(count),
        relative_error=(error.sqrt() / yy.sqrt()).item(),
        cosine=(xy / (xx.sqrt() * yy.sqrt())).item(),
        rank_correlation=rank_correlation,
        ratio_of_means=(sum_x / sum_y).item(),
    )


def rank_correlation(x: Tensor, y: Tensor) -> float:
    """Spearman's, of two flat arrays; nan where a value is."""
    if x.isnan().any() or y.isnan().any():
        return math.nan
    # Exact: the mean rank is (n + 1) / 2, with or without ties.
    u, v = (_ranks(values).sub_((x.numel() + 1) / 2) for values in (x, y))
    return (u.dot(v) / (u.dot(u).sqrt() * v.dot(v).sqrt())).item()


def _ranks(values: Tensor) -> Tensor:
    """Ranks from 1, float64, tied values averaged; values must not be nan."""
    # Integers sort several times faster than floats. The bits of floats >= 0 have the
    # order of the floats, those of negative ones the reverse; + 0 turns -0 into 0.
    bits = (values + 0.0).view(
        torch.int32 if values.dtype == torch.float32 else torch.int64
    )
    bits = torch.where(bits < 0, bits ^ torch.iinfo(bits.dtype).max, bits)
    in_order, order = bits.sort()
    counts = torch.unique_consecutive(in_order, return_counts=True)[1]
    last = counts.cumsum(0).double()
    average = last - (counts - 1) / 2
    ranks = torch.empty(values.shape, dtype=torch.float64)
    ranks[order] = average.repeat_interleave(counts)
    return ranks


def _error_order(error: float) -> tuple[bool, float]:
    return (not math.isnan(error), -error)


def _html_row(row: TensorComparison, tag: str) -> str:
    name, *numbers = (escape(cell) for cell in row._cells())
    return (
        f"<tr><th>{name}</th>"
        + "".join(f"<{tag} style='text-align:right'>{cell}</{tag}>" for cell in numbers)
        + "</tr>"
    )
