"""Reliability diagrams: accuracy over confidence."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .style import colour, finish, panels, styled

BINS = 15


class Bins(NamedTuple):
    """Bins of the top label's probability that have examples, as arrays."""

    confidence: numpy.ndarray  # mean over the bin
    accuracy: numpy.ndarray
    share: numpy.ndarray  # of all examples


def reliability(probabilities: Any, labels: Any) -> Bins:
    """Bins the examples by the probability of their most probable label.

    `probabilities` has the shape (examples, labels), `labels` (examples,). The
    calibration error is `(share * abs(accuracy - confidence)).sum()`.
    """
    probabilities = numpy.asarray(probabilities, dtype=numpy.float64)
    confidence = probabilities.max(1)
    correct = probabilities.argmax(1) == numpy.asarray(labels)
    # Bins (lower, upper], the first one with its lower bound.
    bins = numpy.clip(numpy.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    counts = numpy.bincount(bins, minlength=BINS)
    used = counts > 0
    sums = [numpy.bincount(bins, x, BINS)[used] for x in (confidence, correct)]
    counts = counts[used]
    return Bins(sums[0] / counts, sums[1] / counts, counts / counts.sum())


@styled
def plot_reliability(
    predictions: Mapping[str, tuple[Any, Any]],
    path: str | os.PathLike[str] | None = None,
) -> Figure:
    """Plots a reliability diagram for each name: accuracy over the mean probability of
    the predicted label, in 15 bins, and each bin's share of the examples as bars.

    `predictions` has class probabilities (examples, labels) and labels (examples,).
    Points under the diagonal are predictions that are too confident.
    """
    figure, axes = panels(len(predictions), (2.9, 2.9), sharey=True)
    axes[0].set_ylabel("accuracy, share of examples, %")
    for axis, (name, (probabilities, labels)) in zip(
        axes, predictions.items(), strict=True
    ):
        lowest = 100 / numpy.shape(probabilities)[1]
        _draw(axis, reliability(probabilities, labels), lowest)
        axis.set_title(name)
    return finish(figure, path)


def _draw(axis: Axes, bins: Bins, lowest: float) -> None:
    confidence, accuracy, share = (100 * column for column in bins)
    axis.bar(
        confidence,
        share,
        width=80 / BINS,
        color=colour("grid"),
        edgecolor=colour("grey"),
    )
    axis.plot([lowest, 100], [lowest, 100], color=colour("muted"), linestyle="--")
    axis.plot(confidence, accuracy, color=colour("green"), marker="o")
    axis.set_xlim(lowest - 3, 103)
    axis.set_ylim(0, 103)
    axis.set_xlabel("probability of the predicted label, %")
