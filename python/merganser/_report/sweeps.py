"""Accuracy and loss over a parameter of each method."""

from __future__ import annotations

import os
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .style import below, finish, line, panels, scale, styled

_QUANTITIES = {
    "accuracy": ("accuracy, %", 100),
    "loss": ("loss, nats", 1),
    "calibration_error": ("calibration error, %", 100),
}
_WORST = 1.5  # times the smallest loss or error: what is worse leaves the axes


def parameters(results: dict[str, Any]) -> list[str]:
    """Parameters that the experiment sweeps, in order."""
    return list(dict.fromkeys(s["parameter"] for s in results.get("sweeps", [])))


@styled
def plot_sweeps(
    results: dict[str, Any],
    path: str | os.PathLike[str] | None = None,
    *,
    parameter: str = "weight",
    quantities: tuple[str, ...] = ("accuracy", "loss"),
) -> Figure:
    """Plots the averages on the validation parts over the values of a parameter: a
    line per merge, a panel per quantity ("accuracy", "loss", "calibration_error").

    Rings mark the chosen values, of each seed. A method whose line is flat near its
    maximum needs little tuning. Losses and errors over 1.5 times the smallest one are
    outside the axes, unless they are chosen, so that differences near the best values
    show; the labels of the axes say from where on.
    """
    shown = [s for s in results.get("sweeps", []) if s["parameter"] == parameter]
    if not shown:
        raise ValueError(f"the results have no sweep of {parameter}")
    figure, axes = panels(len(quantities), (4.6, 3.3))
    for axis, quantity in zip(axes, quantities, strict=True):
        label, factor = _QUANTITIES[quantity]
        every, ringed = [], []
        for number, sweep in enumerate(shown):
            points = sorted(
                (p["value"], p["average"][quantity]) for p in sweep["values"]
            )
            x = [value for value, _ in points]
            y = [factor * found for _, found in points]
            axis.plot(x, y, label=sweep["name"], **line(number))
            chosen = sweep["chosen"]
            marks = chosen if isinstance(chosen, list) else [chosen]
            rings = [(a, b) for a, b in zip(x, y, strict=True) if a in marks]
            every += y
            ringed += [b for _, b in rings]
            axis.scatter(
                *zip(*rings, strict=True),
                s=110,
                facecolors="none",
                edgecolors=line(number)["color"],
                zorder=4,
            )
        axis.set_xlabel(parameter)
        note = _limit(axis, quantity, every, ringed)
        axis.set_ylabel("\n".join(filter(None, [f"{label} (validation)", note])))
        axis.grid(axis="y")
        axis.set_axisbelow(True)
        scale(axis, [point["value"] for s in shown for point in s["values"]])
    below(figure, axes[0])
    return finish(figure, path)


def _limit(axis: Axes, quantity: str, values: list[float], ringed: list[float]) -> str:
    """Limits the y axis to the values of interest; returns a note if some are outside.

    Calibration errors have no such limit: the smallest one can be near 0.
    """
    if quantity == "calibration_error":
        return ""
    perfect = 100 if quantity == "accuracy" else 0
    losses = [abs(value - perfect) for value in values]
    low = min(losses)
    high = max(_WORST * low, *(abs(value - perfect) for value in ringed))
    if max(losses) <= high:
        return ""
    margin = 0.05 * (high - low)
    low, high = low - margin, high + margin
    if quantity == "accuracy":
        axis.set_ylim(100 - high, 100 - low)
        return f"below {100 - high:.0f} not shown"
    axis.set_ylim(low, high)
    return f"above {high:.2f} not shown"
