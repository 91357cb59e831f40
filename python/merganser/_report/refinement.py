"""Objectives over the steps of a refinement."""

from __future__ import annotations

import os
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from .style import below, colour, finish, line, panels, styled


@styled
def plot_refinement(
    report: dict[str, Any], path: str | os.PathLike[str] | None = None
) -> Figure:
    """Plots the objectives of a refinement, on the examples of the steps and on those
    held out, over its steps, with the numbers of both; where the objective has a
    proximal term, also the loss held out, which is the objective without it; a vertical
    line marks the step that was kept.

    `report` is that of `merganser.refine`, of `merganser refine --json`, or an entry of
    `refinements` in results.json.
    """
    steps = [s for s in report["steps"] if None not in (s["objective"], s["held_out"])]
    numbers = [step["step"] for step in steps]
    # The executable writes objectives per example, merganser.refine totals.
    weight = report.get("total_weight", 1)
    figure, (axis,) = panels(1, (4.6, 3.0))
    labels = {"objective": "examples of the steps", "held_out": "examples held out"}
    if "tasks" in report:
        held = sum(task["num_examples_held_out"] for task in report["tasks"])
        used = sum(task["num_examples_used"] for task in report["tasks"])
        labels["objective"] = f"{used - held} {labels['objective']}"
        labels["held_out"] = f"{held} {labels['held_out']}"
    if any(step.get("held_out_loss") not in (None, step["held_out"]) for step in steps):
        labels["held_out_loss"] = f"{labels['held_out']}, loss alone"
    for number, (key, label) in enumerate(labels.items()):
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
    axis.set_ylabel("objective per example")
    below(figure, axis)
    return finish(figure, path)
