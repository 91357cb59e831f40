"""Plots the results of `merganser run`.

    python -m merganser.report OUT

reads OUT/results.json and writes OUT/accuracy.png: one panel per test set with the
accuracies of all models and merges, and lines for the accuracy of the base and the
frequency of the most frequent label.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

COLOURS = {
    "base": "#8c8c8c",
    "expert": "#6baed6",
    "target": "#f0a040",
    "merge": "#2f7d5b",
}
BASE_LINE = "#555555"
CHANCE_LINE = "#c0392b"
KINDS = {
    "base": "base",
    "expert": "expert (one set)",
    "target": "target (joint training)",
    "merge": "merge of the experts",
}


def plot_accuracy(results: dict[str, Any], path: str | os.PathLike[str]) -> None:
    """Plots the accuracies (%) in `results`, the content of a results.json, to an
    image file, which is written atomically."""
    from matplotlib import use

    use("Agg")
    from matplotlib import pyplot

    models = results["models"]
    panels = [*results["sets"], "average"]
    figure, axes = pyplot.subplots(
        1,
        len(panels),
        sharey=True,
        figsize=(2.2 + 2.1 * len(panels), 1.6 + 0.32 * len(models)),
        layout="constrained",
    )
    for axis, panel in zip(axes, panels, strict=True):
        draw_panel(axis, results, panel)
    engine: Any = figure.get_layout_engine()
    engine.set(wspace=0.05)
    axes[0].set_yticks(range(len(models)), [model["name"] for model in models])
    axes[0].invert_yaxis()
    figure.legend(
        handles=legend(models), loc="outside lower center", ncols=3, frameon=False
    )
    save(figure, path)


def plot_refinement(report: dict[str, Any], path: str | os.PathLike[str]) -> None:
    """Plots the objectives of `merganser.refine` over its steps to an image file, which
    is written atomically."""
    from matplotlib import use

    use("Agg")
    from matplotlib import pyplot

    steps = [step for step in report["steps"] if step["held_out"] is not None]
    numbers = [step["step"] for step in steps]
    figure, axis = pyplot.subplots(figsize=(5, 3.4), layout="constrained")
    for key, label in (("objective", "objective"), ("held_out", "held out")):
        values = [step[key] / report["total_weight"] for step in steps]
        axis.plot(numbers, values, marker="o", label=label)
    axis.axvline(report["kept_step"], color=BASE_LINE, linestyle="--", linewidth=1)
    axis.set_xlabel(f"step ({report['solver']}; dashed: kept)")
    axis.set_ylabel("objective per example")
    axis.legend(frameon=False)
    save(figure, path)


def save(figure: Any, path: str | os.PathLike[str]) -> None:
    from matplotlib import pyplot

    path = Path(path)
    temporary = path.with_name(f".{path.name}.tmp{path.suffix}")
    try:
        figure.savefig(temporary, dpi=150)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
        pyplot.close(figure)


def draw_panel(axis: Any, results: dict[str, Any], panel: str) -> None:
    models = results["models"]
    rows = range(len(models))
    values = [100 * accuracy(model, panel) for model in models]
    chance = 100 * majority(results, panel)
    base = next(v for v, m in zip(values, models, strict=True) if m["kind"] == "base")
    axis.hlines(rows, 0, 100, color="#ececec", linewidth=1, zorder=0)
    axis.axvline(base, color=BASE_LINE, linewidth=1, linestyle="--")
    axis.axvline(chance, color=CHANCE_LINE, linewidth=1, linestyle=":")
    axis.scatter(values, rows, c=[COLOURS[m["kind"]] for m in models], s=42, zorder=3)
    right = axis.get_yaxis_transform()
    for row, value in zip(rows, values, strict=True):
        # Numbers in one column are easy to compare.
        axis.text(1.03, row, f"{value:.1f}", va="center", size=8, transform=right)
    margin = 0.08 * (max(values) - min(chance, *values)) + 0.5
    axis.set_xlim(min(chance, *values) - margin, max(values) + margin)
    axis.set_xlabel("accuracy, %")
    axis.set_title(panel, fontweight="bold" if panel == "average" else "normal")
    axis.tick_params(axis="y", length=0)
    axis.spines[["top", "right", "left"]].set_visible(False)


def accuracy(model: dict[str, Any], panel: str) -> float:
    scores = model["average"] if panel == "average" else model["sets"][panel]
    return scores["accuracy"]


def majority(results: dict[str, Any], panel: str) -> float:
    shares = results["majority"]
    return sum(shares.values()) / len(shares) if panel == "average" else shares[panel]


def legend(models: list[dict[str, Any]]) -> list[Any]:
    from matplotlib.lines import Line2D

    kinds = dict.fromkeys(model["kind"] for model in models)
    return [
        *(
            Line2D([], [], color=COLOURS[k], marker="o", linestyle="", label=KINDS[k])
            for k in kinds
        ),
        Line2D([], [], color=BASE_LINE, linestyle="--", label="accuracy of the base"),
        Line2D(
            [],
            [],
            color=CHANCE_LINE,
            linestyle=":",
            label="always the most frequent label",
        ),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m merganser.report",
        description="Plots the results of `merganser run` in OUT.",
    )
    parser.add_argument("out", type=Path, metavar="OUT")
    out = parser.parse_args().out
    try:
        results = json.loads((out / "results.json").read_text(encoding="utf-8"))
        plot_accuracy(results, out / "accuracy.png")
    except (OSError, ValueError, KeyError) as error:
        print(f"report: cannot plot {out / 'results.json'}: {error}", file=sys.stderr)
        return 2
    except ImportError as error:
        print(f"report: {error}; pip install matplotlib", file=sys.stderr)
        return 1
    print(out / "accuracy.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
