"""Accuracy and loss over a parameter of each method."""

from __future__ import annotations

import os
from typing import Any

from matplotlib.figure import Figure

from .style import below, finish, line, panels, scale, styled

_QUANTITIES = {
    "accuracy": ("accuracy, %", 100),
    "loss": ("loss, nats", 1),
    "calibration_error": ("calibration error, %", 100),
}


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
    maximum needs little tuning.
    """
    shown = [s for s in results.get("sweeps", []) if s["parameter"] == parameter]
    if not shown:
        raise ValueError(f"the results have no sweep of {parameter}")
    figure, axes = panels(len(quantities), (4.6, 3.3))
    for axis, quantity in zip(axes, quantities, strict=True):
        label, factor = _QUANTITIES[quantity]
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
            axis.scatter(
                *zip(*rings, strict=True),
                s=110,
                facecolors="none",
                edgecolors=line(number)["color"],
                zorder=4,
            )
        axis.set_xlabel(parameter)
        axis.set_ylabel(f"{label} (validation)")
        axis.grid(axis="y")
        axis.set_axisbelow(True)
        scale(axis, [point["value"] for s in shown for point in s["values"]])
    below(figure, axes[0])
    return finish(figure, path)
