"""The page: one HTML file without references to others."""

from __future__ import annotations

import html
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib.figure import Figure

from . import tables
from .accuracy import plot_accuracy
from .mismatch import growing, plot_growing, plot_mismatch
from .models import AVERAGE, norm, output
from .outcome import Outcome, Results
from .refinement import plot_refinement
from .reliability import plot_reliability
from .style import PALETTE, svg
from .summary import summary
from .sweeps import parameters, plot_sweeps
from .tables import Table


@dataclass
class Section:
    """Figures under a heading, or a note where a user would expect them."""

    title: str
    text: str
    figures: list[str]


def render(outcome: Outcome) -> str:
    """The text of the page."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    results = outcome.results
    return environment.get_template("page.html").render(
        title=outcome.out.resolve().name,
        results=results,
        seeds=results.get("seeds", []),
        summary=summary(results),
        table=tables.results_table(results),
        sections=[*sections(outcome)],
        comparisons=[*comparisons(results)],
        removal=removal(results),
        data=tables.data_table(outcome),
        timings=tables.timings_table(results),
        stages=tables.stages_table(results),
        inputs=json.dumps(inputs(results), indent=2),
        seconds=results.get("seconds", 0),
        palette=PALETTE,
    )


def sections(outcome: Outcome) -> Iterator[Section]:
    """Every figure whose data exist."""
    results = outcome.results
    count = len(results["models"])
    yield Section(
        "Accuracy per set",
        f"Accuracies of the {count} models on each test set, and their mean."
        + (" Bars are standard errors over seeds." if results.get("seeds") else ""),
        [
            figure(f"accuracy{i}", f"accuracy, {panel}", plot)
            for i, panel in enumerate([AVERAGE, *results["sets"]])
            for plot in [plot_accuracy(results, sets=[panel], legend=i == 0)]
        ],
    )
    yield mismatch(results)
    yield from adding(results)
    for i, name in enumerate(parameters(results)):
        text = (
            f"Averages over the validation parts for each {name}; rings mark the "
            "values chosen on them. A flat line needs little tuning."
        )
        figures = [
            figure(f"sweep{i}-{quantity}", f"{quantity} over {name}", plot)
            for quantity in ("accuracy", "loss")
            for plot in [plot_sweeps(results, parameter=name, quantities=(quantity,))]
        ]
        yield Section(f"Sweeps of {name}", text, figures)
    plots = [
        figure(f"refinement{i}", f"refinement {name}", plot_refinement(report), name)
        for i, (name, report) in enumerate(outcome.refinements())
    ]
    if plots:
        text = "Joint objective over the steps, on training examples."
        yield Section("Refinement", text, plots)
    yield from calibration(outcome)


def mismatch(results: Results) -> Section:
    title = "Gradient mismatch and test error"
    if not any(norm(model) for model in results["models"]):
        return Section(
            title, "Not measured: the experiment does not set mismatch: true.", []
        )
    text = (
        "The mismatch comes from training data alone: the gradient that remains where "
        "a merge stands, 0 at the optimum of the joint objective."
    )
    figures = [
        figure(f"mismatch-{key}", f"test error over mismatch, {key}", plot)
        for key in ("norm", "h0_inverse_norm")
        if any(norm(model, key) for model in results["models"])
        for plot in [plot_mismatch(results, norms=(key,))]
    ]
    return Section(title, text, figures)


def adding(results: Results) -> Iterator[Section]:
    """Merges of growing numbers of experts."""
    grown = [model for models in growing(results).values() for model in models]
    if grown:
        text = "Merges of 1, 2, ... experts with one method, on all test sets."
        figures = [
            figure(f"growing-{key}", f"test error over {key}", plot)
            for key in ("experts", "norm")
            if key == "experts" or all(norm(model, key) for model in grown)
            for plot in [plot_growing(results, over=(key,))]
        ]
        yield Section("Adding experts", text, figures)


def calibration(outcome: Outcome) -> Iterator[Section]:
    """Reliability diagrams; a note where only their numbers exist."""
    figures = []
    for i, model in enumerate(outcome.results["models"]):
        name = model["name"]
        found = outcome.predictions(name)
        if found is not None:
            plot = plot_reliability({name: found})
            figures.append(figure(f"reliability{i}", f"reliability of {name}", plot))
    text = (
        "Accuracy over the probability of the predicted label, all sets and seeds "
        "pooled, in 15 bins; bars are the share of the examples. Points under the "
        "diagonal are too confident."
    )
    if figures:
        yield Section("Reliability", text, figures)
    elif any("calibration_error" in m[AVERAGE] for m in outcome.results["models"]):
        text = "Not drawn: evaluations/ lacks the class probabilities."
        yield Section("Reliability", text, [])


def figure(name: str, label: str, plot: Figure, caption: str = "") -> str:
    """A <figure>, described by `label` for readers that see no picture."""
    picture = svg(plot, name).replace(
        "<svg ", f'<svg role="img" aria-label="{html.escape(label)}" ', 1
    )
    caption = f"<figcaption>{html.escape(caption)}</figcaption>" if caption else ""
    width = plot.get_figwidth()
    return f'<figure style="width: {width:.2f}in">{caption}{picture}</figure>'


def comparisons(results: Results) -> Iterator[tuple[str, bool, Table]]:
    """Title, whether it is open, and table: pairs with the output, and all pairs."""
    pairs = results.get("comparisons", [])
    chosen = output(results)
    if pairs and chosen is not None:
        chosen_pairs = tables.against(pairs, chosen["name"])
        table = tables.comparisons_table(chosen_pairs, results["sets"], second=False)
        yield f"Each model compared with {chosen['name']}", True, table
    if pairs:
        table = tables.comparisons_table(pairs, results["sets"])
        yield f"All {len(pairs)} pairs", False, table


def removal(results: Results) -> tuple[str, Table] | None:
    found = results.get("removal")
    if not found:
        return None
    return f"{found['data']} removed from {found['from']}", tables.removal_table(found)


def inputs(results: Results) -> Results:
    """Settings and hashes of the inputs of each stage."""
    return {stage["name"]: stage["inputs"] for stage in results.get("stages", [])}
