"""Accuracies of all models, a panel per test set."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from .models import AVERAGE, majority, scores, standard_error
from .style import KINDS, colour, finish, kind_of, panels, styled


@styled
def plot_accuracy(
    results: dict[str, Any],
    path: str | os.PathLike[str] | None = None,
    *,
    sets: Sequence[str] | None = None,
    legend: bool = True,
) -> Figure:
    """Plots the accuracies (%) of all models, a panel per test set and one for their
    average, with lines for the accuracy of the base and the frequency of the most
    frequent label; over several seeds with standard errors.

    `results` is the content of a results.json; `sets` selects panels ("average" is
    one); the figure is written to `path` if given.
    """
    models = results["models"]
    shown = [*results["sets"], AVERAGE] if sets is None else list(sets)
    figure, axes = panels(len(shown), (2.0, 0.27 * len(models) + 0.8), sharey=True)
    figure.set_figwidth(2.05 + 1.9 * len(shown))
    for axis, panel in zip(axes, shown, strict=True):
        _draw(axis, results, panel)
    axes[0].set_yticks(range(len(models)), [model["name"] for model in models])
    axes[0].invert_yaxis()
    if legend:
        handles = _legend(models)
        columns = 2 if len(shown) < 3 else 3
        figure.set_figheight(
            figure.get_figheight() + 0.2 * len(handles) / columns + 0.2
        )
        figure.legend(
            handles=handles, loc="outside lower center", ncols=columns, fontsize=8.5
        )
    return finish(figure, path)


def _draw(axis: Axes, results: dict[str, Any], panel: str) -> None:
    models = results["models"]
    values = [100 * scores(model, panel)["accuracy"] for model in models]
    chance = 100 * majority(results, panel)
    right = axis.get_yaxis_transform()
    for row, (model, value) in enumerate(zip(models, values, strict=True)):
        kind = kind_of(model)
        axis.axhline(row, color=colour("grid"), linewidth=1, zorder=0)
        error = standard_error(model, panel, "accuracy") or 0
        axis.errorbar(
            value,
            row,
            xerr=100 * error if error else None,
            marker=kind.marker,
            color=colour(kind.colour),
            capsize=2,
            zorder=3,
        )
        # Numbers in one column are easy to compare.
        axis.text(1.03, row, f"{value:.1f}", va="center", size=8, transform=right)
        if model["kind"] == "base":
            axis.axvline(value, color=colour("muted"), linewidth=1, linestyle="--")
    axis.axvline(chance, color=colour("red"), linewidth=1, linestyle=":")
    margin = 0.08 * (max(values) - min(chance, *values)) + 0.5
    axis.set_xlim(min(chance, *values) - margin, max(values) + margin)
    axis.set_xlabel("accuracy, %")
    axis.set_title(panel, fontweight="bold" if panel == AVERAGE else "normal")
    axis.tick_params(axis="y", length=0)
    axis.spines["left"].set_visible(False)


def _legend(models: list[dict[str, Any]]) -> list[Line2D]:
    kinds = dict.fromkeys(kind_of(model) for model in models)
    handles = [
        Line2D(
            [],
            [],
            color=colour(kind.colour),
            marker=kind.marker,
            linestyle="",
            label=kind.label,
        )
        for kind in KINDS.values()
        if kind in kinds
    ]
    return [
        *handles,
        Line2D(
            [], [], color=colour("muted"), linestyle="--", label="accuracy of the base"
        ),
        Line2D([], [], color=colour("red"), linestyle=":", label="most frequent label"),
    ]
