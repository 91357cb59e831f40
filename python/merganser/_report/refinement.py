"""Objectives over the steps of a refinement."""

from __future__ import annotations

import os
from collections.abc import Mapping
from math import inf
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from .style import below, colour, finish, line, panels, styled

Report = Mapping[str, Any]


@styled
def plot_refinement(
    report: Report | Mapping[str, Report], path: str | os.PathLike[str] | None = None
) -> Figure:
    """Plots the objectives of a refinement, on the examples of the steps and on those
    held out, over its steps, with the numbers of both; where the objective has a
    proximal term of over 1 % of it, also the loss held out, which is the objective
    without it; a vertical line marks the step that was kept.

    `report` is that of `merganser.refine`, of `merganser refine --json`, or an entry of
    `refinements` in results.json; or several of them by name, a panel each.
    """
    reports = {"": report} if "steps" in report else dict(report)
    figure, axes = panels(len(reports), (4.6 if len(reports) == 1 else 3.6, 3.0))
    labels = _labels([*reports.values()])
    for axis, (title, shown) in zip(axes, reports.items(), strict=True):
        _draw(axis, shown, labels)
        axis.set_title(title)
    axes[0].set_ylabel("objective per example, nats")
    below(figure, axes[0])
    return finish(figure, path)


def _steps(report: Report) -> list[Report]:
    """Those whose objectives are finite."""
    return [s for s in report["steps"] if None not in (s["objective"], s["held_out"])]


def _labels(reports: list[Report]) -> dict[str, str]:
    """Labels of a step's numbers, with the counts of the examples if all agree."""
    labels = {"objective": "examples of the steps", "held_out": "examples held out"}
    counts = {_counts(report) for report in reports}
    if len(counts) == 1 and (count := counts.pop()):
        labels["objective"] = f"{count[0]} {labels['objective']}"
        labels["held_out"] = f"{count[1]} {labels['held_out']}"
    steps = [step for report in reports for step in _steps(report)]
    if any(step.get("held_out_loss", inf) < 0.99 * step["held_out"] for step in steps):
        labels["held_out_loss"] = f"{labels['held_out']}, loss alone"
    return labels


def _counts(report: Report) -> tuple[int, int] | None:
    """Examples of the steps and examples held out."""
    if "tasks" not in report:
        return None
    held = sum(task["num_examples_held_out"] for task in report["tasks"])
    used = sum(task["num_examples_used"] for task in report["tasks"])
    return used - held, held


def _draw(axis: Axes, report: Report, labels: dict[str, str]) -> None:
    steps = _steps(report)
    numbers = [step["step"] for step in steps]
    # The executable writes objectives per example, merganser.refine totals.
    weight = report.get("total_weight", 1)
    for number, (key, label) in enumerate(labels.items()):
        if all(key in step for step in steps):
            values = [step[key] / weight for step in steps]
            axis.plot(numbers, values, label=label, **line(number))
    if "kept_step" in report:
        axis.axvline(
            report["kept_step"],
            color=colour("muted"),
            linestyle=(0, (2, 2)),
            linewidth=1,
            label="kept",
        )
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    solver = f" ({report['solver']})" if "solver" in report else ""
    axis.set_xlabel(f"step{solver}")
