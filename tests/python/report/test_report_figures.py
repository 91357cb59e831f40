"""The figures' numbers, and files that they are written to."""

import json

import numpy
import pytest
import report_runs
from matplotlib.figure import Figure
from merganser import report
from merganser._report.labels import label_points
from merganser._report.style import panels

pytestmark = pytest.mark.slow  # of the experiment in its fixture


@pytest.fixture
def results(reports):
    return json.loads((reports / "full" / "results.json").read_text())


def lines(axis):
    """Coordinates of the lines with a label that a legend shows."""
    found = {line.get_label(): line.get_xydata().tolist() for line in axis.lines}
    return {name: points for name, points in found.items() if name[0] != "_"}


def points(axis):
    """Coordinates of the points with error bars, without those of the bars."""
    return numpy.array(sorted(tuple(b[0].get_xydata()[0]) for b in axis.containers))


def test_reliability_sums_to_the_calibration_error():
    random = numpy.random.default_rng(3)
    probabilities = random.dirichlet([0.4, 0.3, 0.3], 500)
    labels = random.integers(0, 3, 500)
    bins = report.reliability(probabilities, labels)
    error = (bins.share * abs(bins.accuracy - bins.confidence)).sum()
    expected = report_runs.calibration_error(probabilities, labels)
    assert error == pytest.approx(expected, abs=1e-12)
    assert bins.share.sum() == pytest.approx(1)
    right = (probabilities.argmax(1) == labels).mean()
    assert (bins.share * bins.accuracy).sum() == pytest.approx(right)


def test_reliability_at_the_edges_of_bins():
    """1/3 and 2/3 close a bin, 1 is in the last one."""
    top = [1.0, 1.0, 0.6, 0.6, 0.62]
    probabilities = [[p, 1 - p] for p in top]
    bins = report.reliability(probabilities, [0, 1, 0, 0, 0])
    assert bins.confidence == pytest.approx([0.6, 0.62, 1.0])
    assert bins.accuracy == pytest.approx([1, 1, 0.5])
    assert bins.share == pytest.approx([0.4, 0.2, 0.4])


def test_accuracy_of_every_model(results):
    figure = report.plot_accuracy(results)
    assert [axis.get_title() for axis in figure.axes] == [*report_runs.SETS, "average"]
    expected = sorted(
        (100 * model["average"]["accuracy"], row)
        for row, model in enumerate(results["models"])
    )
    assert points(figure.axes[-1]) == pytest.approx(numpy.array(expected))
    assert len(report.plot_accuracy(results, sets=["nyt"]).axes) == 1


def useless(results, better=-0.15):
    """Makes linear better than the most frequent label by this only."""
    model = next(m for m in results["models"] if m["name"] == "linear")
    accuracy = numpy.mean([*results["majority"].values()]) + better
    model["average"]["accuracy"] = accuracy
    for scores in model["sets"].values():
        scores["accuracy"] = accuracy
    return results


@pytest.mark.parametrize("better", [-0.15, 0.01])
def test_accuracies_leave_a_useless_model_out(results, better):
    """It would stretch the axes, as the frequency of the most frequent label would."""
    before = report.plot_accuracy(results)
    assert not before.get_suptitle()
    figure = report.plot_accuracy(useless(results, better))
    note = "not shown, hardly better than the most frequent label: linear"
    assert figure.get_suptitle() == note
    for axis, panel in zip(figure.axes, [*report_runs.SETS, "average"], strict=True):
        assert len(points(axis)) == len(results["models"]) - 1
        assert axis.get_xlim()[0] > 60
        shares = results["majority"]
        share = numpy.mean([*shares.values()]) if panel == "average" else shares[panel]
        assert f"most frequent label {100 * share:.1f}" in axis.get_xlabel()
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert "linear" not in names and len(names) == len(results["models"]) - 1


def test_accuracies_show_every_model_if_all_are_useless(results):
    results["majority"] = dict.fromkeys(results["majority"], 1.0)
    figure = report.plot_accuracy(results)
    assert not figure.get_suptitle()
    assert len(points(figure.axes[0])) == len(results["models"])


def test_mismatch_against_test_error(results):
    figure = report.plot_mismatch(results)
    measured = [
        model
        for model in results["models"]
        if "mismatch" in model and model.get("experts") != ["amazon"]
    ]
    for axis, key in zip(figure.axes, ("norm", "h0_inverse_norm"), strict=True):
        expected = sorted(
            (
                model["mismatch"]["total"]["mismatch"][key],
                100 * (1 - model["average"]["accuracy"]),
            )
            for model in measured
        )
        assert points(axis) == pytest.approx(numpy.array(expected))
        names = {text.get_text() for text in axis.texts} - {""}
        assert names == {model["name"] for model in measured}


def test_mismatch_ranks_merges(results):
    """The titles' correlations, against ranks by comparison of all pairs."""

    def spearman(x, y):
        ranks = [(v[:, None] > v).sum(1) + (v[:, None] == v).sum(1) / 2 for v in (x, y)]
        return numpy.corrcoef(*ranks)[0, 1]

    merged = [
        model
        for model in results["models"]
        if model["kind"] == "merge" and model.get("experts") != ["amazon"]
    ]
    for count, model in enumerate(merged):
        model["mismatch"] = {"total": {"mismatch": {"norm": (7 * count) % 5 + 1.0}}}
    x = numpy.array([m["mismatch"]["total"]["mismatch"]["norm"] for m in merged])
    error = numpy.array([1 - m["average"]["accuracy"] for m in merged])
    loss = numpy.array([m["average"]["loss"] for m in merged])
    title = report.plot_mismatch(results, norms=("norm",)).axes[0].get_title()
    assert title == (
        f"{len(merged)} merges, Spearman {spearman(x, error):.2f} with the error, "
        f"{spearman(x, loss):.2f} with the loss"
    )


def test_a_useless_merge_is_named_and_not_drawn(results):
    """It would squeeze the others; the correlations count it."""
    before = report.plot_mismatch(results, norms=("norm",)).axes[0]
    axis = report.plot_mismatch(useless(results), norms=("norm",)).axes[0]
    assert len(axis.containers) == len(before.containers) - 1
    assert axis.get_ylim()[1] < 50
    counted, note = axis.get_title().split("\n")
    assert counted.split()[0] == before.get_title().split()[0]
    assert note.endswith("hardly better than the most frequent label: linear")


def test_names_of_close_points_do_not_overlap(results):
    for number, model in enumerate(results["models"][3:]):
        model["mismatch"]["total"]["mismatch"]["norm"] = 10 + 0.01 * number
        model["average"]["accuracy"] = 0.9 - 0.0005 * number
    figure = report.plot_mismatch(results, norms=("norm",))
    figure.canvas.draw()
    boxes = [t.get_window_extent() for t in figure.axes[0].texts if t.get_text()]
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


@pytest.mark.parametrize("seed", range(4))
def test_names_belong_to_points(seed):
    """A line leads to a name that is not nearest to its own point."""
    figure, (axis,) = panels(1, (4.6, 4))
    random = numpy.random.default_rng(seed)
    places = random.random((16, 2))
    axis.scatter(*places.T)
    names = [f"name_of_{'long_' * (i % 3)}{i}" for i in range(len(places))]
    label_points(axis, [*map(tuple, places)], names, [0] * len(places))
    figure.canvas.draw()
    texts = [text for text in axis.texts if text.get_text()]
    assert [text.get_text() for text in texts] == names
    boxes = [text.get_window_extent() for text in texts]
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    led = {tuple(text.xy) for text in axis.texts if not text.get_text()}
    assert led
    centres = axis.transData.transform(places)
    for number, box in enumerate(boxes):
        distances = numpy.hypot(*(centres - centres.clip(box.min, box.max)).T)
        assert tuple(places[number]) in led or distances.argmin() == number


@pytest.mark.parametrize("gap", [1, 8])
def test_names_do_not_run_together(gap):
    """The left point's name is right of it; the right one's would follow that name
    after `gap` points, as it has no room on its right."""
    figure, (axis,) = panels(1, (4.6, 3))
    axis.set_xlim(0, 1)
    name = "gradient_matching"
    label_points(axis, [(0.01, 0.5)], [name], [0])
    width = axis.texts[0].get_window_extent().width * 72 / figure.dpi
    pixels = (2 * (7 + width) + gap) * figure.dpi / 72
    right = axis.transData.transform([1, 0.5])
    left = axis.transData.inverted().transform(right - [pixels, 0])
    axis.texts[0].remove()
    label_points(axis, [tuple(left), (1, 0.5)], [name, name], [0, 0])
    figure.canvas.draw()
    first, second = (text.get_window_extent() for text in axis.texts if text.get_text())
    assert (first.y0 == second.y0) == (gap == 8)


def test_legend_fits_into_its_figure(results):
    for sweep, name in zip(results["sweeps"], "ab", strict=True):
        sweep["name"] = 30 * name
    for figure in (
        report.plot_mismatch(results, norms=("norm",)),
        report.plot_sweeps(results, quantities=("loss",)),
        report.plot_refinement(results["refinements"][0]),
    ):
        figure.canvas.draw()
        box = figure.legends[0].get_window_extent()
        assert figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1


def test_growing_merges(results):
    figure = report.plot_growing(results)
    errors = {
        model["name"]: 100 * (1 - model["average"]["accuracy"])
        for model in results["models"]
    }
    axis = figure.axes[0]
    for bars in axis.containers:
        name = bars.get_label()
        expected = [[1, errors[f"{name}_1"]], [2, errors[name]]]
        assert bars[0].get_xydata().tolist() == pytest.approx(numpy.array(expected))
    assert {bars.get_label() for bars in axis.containers} == {
        "fisher",
        "gradient_matching",
    }


def test_sweeps(results):
    figure = report.plot_sweeps(results)
    for axis, (key, factor) in zip(
        figure.axes, (("accuracy", 100), ("loss", 1)), strict=True
    ):
        assert axis.get_xscale() == "log"
        for sweep, rings in zip(results["sweeps"], axis.collections, strict=True):
            expected = [
                [p["value"], factor * p["average"][key]] for p in sweep["values"]
            ]
            assert lines(axis)[sweep["name"]] == pytest.approx(numpy.array(expected))
            chosen = [point for point in expected if point[0] == sweep["chosen"]]
            assert rings.get_offsets().tolist() == pytest.approx(numpy.array(chosen))


def test_sweeps_show_differences_near_the_best_values(results):
    """Losses and errors up to 1.5 times the smallest one, and the chosen values."""
    steep = results["sweeps"][0]
    steep["values"][-1]["average"].update(accuracy=0.5, loss=5.4)
    chosen = next(v for v in steep["values"] if v["value"] == 0.2)["average"]
    chosen["loss"] = 0.9
    steep["chosen"] = 0.2
    values = [v["average"] for s in results["sweeps"] for v in s["values"]]
    accuracy, loss = report.plot_sweeps(results).axes
    best = max(v["accuracy"] for v in values)
    low, high = accuracy.get_ylim()
    assert 100 * (1 - 2 * (1 - best)) < low < 100 * (1 - 1.5 * (1 - best))
    assert 100 * best < high < 100
    assert accuracy.get_ylabel().endswith(f"(validation)\nbelow {low:.0f} not shown")
    low, high = loss.get_ylim()
    assert low < min(v["loss"] for v in values) and 0.9 < high < 1
    assert loss.get_ylabel() == f"loss, nats (validation)\nabove {high:.2f} not shown"
    # Nothing to leave out.
    for value in values:
        value.update(accuracy=0.8 + value["accuracy"] / 100, loss=0.4)
    for axis in report.plot_sweeps(results).axes:
        assert "not shown" not in axis.get_ylabel()


@pytest.mark.parametrize("weight", [None, 50])
def test_refinement_is_per_example(results, weight):
    """merganser.refine reports totals, the executable values per example."""
    steps = dict(results["refinements"][0])
    if weight:
        steps["total_weight"] = weight
    (axis,) = report.plot_refinement(steps).axes
    expected = [[s["step"], s["held_out"] / (weight or 1)] for s in steps["steps"]]
    assert lines(axis)["examples held out"] == pytest.approx(numpy.array(expected))
    assert lines(axis)["kept"][0][0] == 2
    assert axis.get_ylabel() == "objective per example, nats"


@pytest.mark.parametrize("part", [1, 0.995, 0.9])
def test_refinement_with_a_proximal_term(results, part):
    """The loss has a line of its own where it is visibly below the objective."""
    steps = dict(results["refinements"][0])
    steps["steps"] = [
        {**s, "held_out_loss": part * s["held_out"]} for s in steps["steps"]
    ]
    drawn = lines(report.plot_refinement(steps).axes[0])
    expected = [[s["step"], s["held_out_loss"]] for s in steps["steps"]]
    assert ("examples held out, loss alone" in drawn) == (part == 0.9)
    if part == 0.9:
        found = drawn["examples held out, loss alone"]
        assert found == pytest.approx(numpy.array(expected))


def test_refinements_in_one_figure(results):
    """A panel each; the legend has the numbers of examples that all of them have."""
    one = dict(results["refinements"][0])
    one["tasks"] = [{"num_examples_used": 50, "num_examples_held_out": 10}]
    figure = report.plot_refinement({"a": one, "b": {**one, "kept_step": 3}})
    assert [axis.get_title() for axis in figure.axes] == ["a", "b"]
    assert [lines(axis)["kept"][0][0] for axis in figure.axes] == [2, 3]
    assert "40 examples of the steps" in lines(figure.axes[0])
    other = {**one, "tasks": [{"num_examples_used": 9, "num_examples_held_out": 2}]}
    figure = report.plot_refinement({"a": one, "b": other})
    for axis in figure.axes:
        assert "examples of the steps" in lines(axis)


@pytest.mark.parametrize("draw", ["mismatch", "growing", "sweeps"])
def test_figure_without_data(reports, draw):
    plain = json.loads((reports / "plain" / "results.json").read_text())
    with pytest.raises(ValueError, match="the results have no "):
        getattr(report, f"plot_{draw}")(plain)


def test_figure_is_written_and_returned(results, tmp_path):
    figure = report.plot_accuracy(results, tmp_path / "figure.png")
    assert isinstance(figure, Figure)
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ValueError):
        report.plot_accuracy(results, tmp_path / "figure.unknown")
    assert [path.name for path in tmp_path.iterdir()] == ["figure.png"]


def test_lines_differ_without_colour():
    from merganser._report.style import KINDS, LINES

    looks = [(line["marker"], str(line["linestyle"])) for line in LINES]
    assert len(set(looks)) == len({look for look, _ in looks}) == len(LINES)
    assert len({kind.marker for kind in KINDS.values()}) == len(KINDS)
