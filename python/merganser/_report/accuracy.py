"""Accuracies of all models, a panel per test set."""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import compress
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from .models import AVERAGE, Model, majority, scores, standard_error, useful
from .style import KINDS, colour, finish, kind_of, names_of_hidden, panels, styled

_NAMES, _PANEL = 2.05, 1.9  # inches of the models' names, and of each panel


@styled
def plot_accuracy(
    results: dict[str, Any],
    path: str | os.PathLike[str] | None = None,
    *,
    sets: Sequence[str] | None = None,
    legend: bool = True,
) -> Figure:
    """Plots the accuracies (%) of all models, a panel per test set and one for their
    average, with a line for the accuracy of the base; over several seeds with standard
    errors. The frequency of the most frequent label is under each panel, with a line
    where it is near the accuracies. Models hardly better than it on average (by at most
    a fifth of what the best model is) would leave no room for the others and are only
    named.

    `results` is the content of a results.json; `sets` selects panels ("average" is
    one); the figure is written to `path` if given.
    """
    models = useful(results)
    hidden = [model["name"] for model in results["models"] if model not in models]
    shown = [*results["sets"], AVERAGE] if sets is None else list(sets)
    width = _NAMES + _PANEL * len(shown)
    figure, axes = panels(len(shown), (2.0, 0.27 * len(models) + 0.95), sharey=True)
    figure.set_figwidth(width)
    for axis, panel in zip(axes, shown, strict=True):
        _draw(axis, models, panel, 100 * majority(results, panel))
    axes[0].set_yticks(range(len(models)), [model["name"] for model in models])
    axes[0].set_ylim(len(models) - 0.4, -0.6)
    note = names_of_hidden(hidden, width, 8.5)
    if note:
        figure.suptitle(note, size=8.5)
        figure.set_figheight(figure.get_figheight() + 0.17 * len(note.splitlines()))
    if legend:
        # Also of the other panels, whose figures may have no legend.
        every = (*results["sets"], AVERAGE)
        chance = any(_limits(models, p, 100 * majority(results, p))[1] for p in every)
        handles = _legend(models, chance)
        columns = 2 if len(shown) < 3 else 3
        figure.set_figheight(
            figure.get_figheight() + 0.2 * len(handles) / columns + 0.2
        )
        figure.legend(
            handles=handles, loc="outside lower center", ncols=columns, fontsize=8.5
        )
    return finish(figure, path)


def _draw(axis: Axes, models: list[Model], panel: str, chance: float) -> None:
    right = axis.get_yaxis_transform()
    for row, model in enumerate(models):
        kind = kind_of(model)
        value, error = _accuracy(model, panel)
        axis.axhline(row, color=colour("grid"), linewidth=1, zorder=0)
        axis.errorbar(
            value,
            row,
            xerr=error or None,
            marker=kind.marker,
            color=colour(kind.colour),
            capsize=2,
            zorder=3,
        )
        # Numbers in one column are easy to compare.
        axis.text(1.03, row, f"{value:.1f}", va="center", size=8, transform=right)
        if model["kind"] == "base":
            axis.axvline(value, color=colour("muted"), linewidth=1, linestyle="--")
    limits, has_chance = _limits(models, panel, chance)
    if has_chance:
        axis.axvline(chance, color=colour("red"), linewidth=1, linestyle=":")
    axis.set_xlim(*limits)
    axis.set_xlabel(f"accuracy, %\n(most frequent label {chance:.1f})")
    axis.set_title(panel, fontweight="bold" if panel == AVERAGE else "normal")
    axis.tick_params(axis="y", length=0)
    axis.spines["left"].set_visible(False)


def _accuracy(model: Model, panel: str) -> tuple[float, float]:
    """With its standard error, 0 for one seed; in %."""
    error = standard_error(model, panel, "accuracy") or 0
    return 100 * scores(model, panel)["accuracy"], 100 * error


def _limits(
    models: list[Model], panel: str, chance: float
) -> tuple[tuple[float, float], bool]:
    """Limits of the axis, and whether `chance` is near enough to be in them."""
    found = [_accuracy(model, panel) for model in models]
    low, high = min(v - e for v, e in found), max(v + e for v, e in found)
    near = low - (high - low) / 4 < chance
    low = min(low, chance) if near else low
    margin = 0.08 * (high - low) + 0.2
    return (low - margin, high + margin), near


def _legend(models: list[Model], chance: bool) -> list[Line2D]:
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
    lines = [
        Line2D(
            [], [], color=colour("muted"), linestyle="--", label="accuracy of the base"
        ),
        Line2D([], [], color=colour("red"), linestyle=":", label="most frequent label"),
    ]
    drawn = (KINDS["base"] in kinds, chance)
    return [*handles, *compress(lines, drawn)]
