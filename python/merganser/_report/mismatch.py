"""Test error over the gradient mismatch, of schemes and of growing merges."""

from __future__ import annotations

import os
from typing import Any

import torch
from matplotlib.figure import Figure

from ..comparison import rank_correlation
from .labels import label_points
from .models import (
    AVERAGE,
    Model,
    lacks_experts,
    merges,
    norm,
    scores,
    standard_error,
    useful,
)
from .style import (
    below,
    colour,
    finish,
    kind_of,
    line,
    names_of_hidden,
    panels,
    scale,
    styled,
)

_NORMS = {
    "norm": "gradient mismatch, 2-norm",
    "h0_inverse_norm": "gradient mismatch, norm in 1/H0",
}


@styled
def plot_mismatch(
    results: dict[str, Any],
    path: str | os.PathLike[str] | None = None,
    *,
    norms: tuple[str, ...] = ("norm", "h0_inverse_norm"),
) -> Figure:
    """Plots the average test error (%) over the gradient mismatch, which training data
    alone give: a point per model that has one, a panel per norm. Merges of some of the
    experts only are in `plot_growing`; models hardly better than the most frequent
    label would leave no room for the others and are named in place of a point.

    A better method has both smaller (Daheim et al., figure 1, right). The titles have
    Spearman's correlations of the merges' mismatch with their error and loss.
    """
    every = [m for m in results["models"] if not lacks_experts(results, m)]
    shown = [m for m in useful(results) if m in every]
    measured = [key for key in norms if any(norm(m, key) for m in shown)]
    if not measured:
        raise ValueError("the results have no mismatch; set mismatch: true")
    height = 3.4 + 0.2 * max(0, len(shown) - 8)  # names need room
    figure, axes = panels(len(measured), (4.6, height), sharey=True)
    axes[0].set_ylabel("test error, % (average of the sets)")
    for axis, key in zip(axes, measured, strict=True):
        models = [m for m in shown if norm(m, key)]
        points = [(norm(m, key) or 0.0, _error(m)) for m in models]
        for model, (x, y) in zip(models, points, strict=True):
            kind = kind_of(model)
            axis.errorbar(
                x,
                y,
                yerr=_spread(model),
                marker=kind.marker,
                color=colour(kind.colour),
                capsize=2,
                linestyle="",
                label=kind.label,
            )
        scale(axis, [x for x, _ in points])
        axis.set_xlabel(_NORMS[key])
        hidden = [m["name"] for m in every if m not in shown and norm(m, key)]
        axis.set_title(_title([m for m in every if norm(m, key)], key, hidden), size=9)
        axis.margins(0.12)
    below(figure, axes[0])
    for axis, key in zip(axes, measured, strict=True):
        models = [m for m in shown if norm(m, key)]
        points = [(norm(m, key) or 0.0, _error(m)) for m in models]
        spreads = [_spread(m) or 0 for m in models]
        label_points(axis, points, [m["name"] for m in models], spreads)
    return finish(figure, path)


def _title(models: list[Model], key: str, hidden: list[str]) -> str:
    note = names_of_hidden(hidden, 4.6, 9)
    return "\n".join(filter(None, [_correlations(models, key), note]))


def _correlations(models: list[Model], key: str) -> str:
    merged = [m for m in models if m["kind"] == "merge"]
    if len(merged) < 3:
        return ""
    x = torch.tensor([norm(m, key) or 0.0 for m in merged], dtype=torch.float64)
    values = [scores(m, AVERAGE) for m in merged]
    error = -torch.tensor([v["accuracy"] for v in values], dtype=torch.float64)
    loss = torch.tensor([v["loss"] for v in values], dtype=torch.float64)
    return (
        f"{len(merged)} merges, Spearman {rank_correlation(x, error):.2f} with the "
        f"error, {rank_correlation(x, loss):.2f} with the loss"
    )


def growing(results: dict[str, Any]) -> dict[str, list[Model]]:
    """Merges of 1, 2, ... experts by method, for the methods that have several."""
    found: dict[str, dict[int, Model]] = {}
    for model in merges(results):
        if "method" in model and "experts" in model:
            counts = found.setdefault(model["method"], {})
            counts.setdefault(len(model["experts"]), model)
    return {
        method: [counts[n] for n in sorted(counts)]
        for method, counts in found.items()
        if len(counts) > 1
    }


@styled
def plot_growing(
    results: dict[str, Any],
    path: str | os.PathLike[str] | None = None,
    *,
    over: tuple[str, ...] = ("experts", "norm"),
) -> Figure:
    """Plots the average test error (%) of merges of 1, 2, ... experts, a line per
    method: over their number ("experts") and over the mismatch ("norm",
    "h0_inverse_norm"), a panel for each that all of them have.

    The merges are those whose `experts` differ in number, in results.json.
    """
    methods = growing(results)
    if not methods:
        raise ValueError("the results have no method that merges 1, 2, ... experts")
    every = [model for models in methods.values() for model in models]
    shown = [
        key for key in over if key == "experts" or all(norm(m, key) for m in every)
    ]
    figure, axes = panels(len(shown), (4.6, 3.3), sharey=True)
    axes[0].set_ylabel("test error, % (average of the sets)")
    for axis, key in zip(axes, shown, strict=True):
        for number, (method, models) in enumerate(methods.items()):
            counts = [len(m["experts"]) for m in models]
            x = counts if key == "experts" else [norm(m, key) or 0.0 for m in models]
            errors = [_error(m) for m in models]
            spreads = [_spread(m) or 0 for m in models]
            axis.errorbar(x, errors, spreads, label=method, capsize=2, **line(number))
        if key == "experts":
            axis.set_xlabel("number of experts in the merge")
            axis.set_xticks(sorted({len(m["experts"]) for m in every}))
        else:
            axis.set_xlabel(f"{_NORMS[key]} (numbers: experts)")
            scale(axis, [norm(m, key) or 0.0 for m in every])
    below(figure, axes[0])
    for axis, key in zip(axes, shown, strict=True):
        if key != "experts":
            points = [(norm(m, key) or 0.0, _error(m)) for m in every]
            counts = [str(len(m["experts"])) for m in every]
            label_points(axis, points, counts, [_spread(m) or 0 for m in every])
    return finish(figure, path)


def _error(model: Model) -> float:
    return 100 * (1 - scores(model, AVERAGE)["accuracy"])


def _spread(model: Model) -> float | None:
    error = standard_error(model, AVERAGE, "accuracy")
    return None if error is None else 100 * error
