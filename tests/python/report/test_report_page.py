"""Contents of the report page, and the command that writes it."""

import html
import json
import re
import subprocess
import sys

import command
import pytest
import report_runs
from merganser._report.outcome import Outcome
from merganser._report.summary import summary
from merganser._report.tables import against, removal_table, results_table
from merganser.report import write_report

pytestmark = pytest.mark.slow  # of the experiment in its fixture

FIGURES = {
    "Accuracy per set",
    "Gradient mismatch and test error",
    "Adding experts",
    "Sweeps of weight",
    "Refinement",
    "Reliability",
}


def page(reports, name):
    return (reports / name / "report.html").read_text()


def sections(text):
    """Titles, and the number of figures of each section."""
    parts = re.findall(r"<h2>(.*?)</h2>(.*?)</section>", text, re.DOTALL)
    return {title: len(re.findall("<figure", body)) for title, body in parts}


def cells(text):
    """Rows of the first table, by name."""
    body = re.search("<tbody>(.*?)</tbody>", text, re.DOTALL).group(1)
    rows = [
        re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in body.split("</tr>")
    ]
    return {row[0]: row[1:] for row in rows if row}


def test_every_figure_whose_data_exist(reports):
    assert sections(page(reports, "full")).keys() >= FIGURES
    for name in ("full", "seeds"):
        found = sections(page(reports, name))
        assert all(found[title] > 0 for title in FIGURES)
        assert found["Accuracy per set"] == 4
        assert found["Reliability"] == 11
    plain = sections(page(reports, "plain"))
    assert plain["Accuracy per set"] == 4
    # Expected by a user, and missing: said, without a figure. Others: not a word.
    assert plain["Gradient mismatch and test error"] == 0
    assert "mismatch: true" in page(reports, "plain")
    assert not plain.keys() & {"Adding experts", "Refinement", "Reliability", "Removal"}


def test_table_has_the_results(reports):
    results = json.loads((reports / "full" / "results.json").read_text())
    rows = cells(page(reports, "full"))
    for model in results["models"]:
        row = rows[model["name"]]
        accuracies = [model["sets"][key]["accuracy"] for key in report_runs.SETS]
        accuracies.append(model["average"]["accuracy"])
        accuracies.append(model["average"]["accuracy_over_examples"])
        assert row[0] == model["kind"]
        assert row[1:6] == [f"{100 * value:.1f}" for value in accuracies]
        assert row[6] == f"{model['average']['loss']:.3f}"
        assert row[7] == f"{100 * model['average']['calibration_error']:.1f}"
        assert row[9] == f"{100 * model['retained']:.1f}"


def test_standard_errors_over_seeds(reports):
    results = json.loads((reports / "seeds" / "results.json").read_text())
    model = next(m for m in results["models"] if m["name"] == "fisher")
    values = [model[key] for key in ("average", "standard_error")]
    error = values[1]["average"]["accuracy"]
    expected = f"{100 * values[0]['accuracy']:.1f} ± {100 * error:.1f}"
    assert cells(page(reports, "seeds"))["fisher"][4] == expected


def of_all_experts(results):
    return [
        model
        for model in results["models"]
        if model["kind"] in ("merge", "refined") and not model["name"].endswith("_1")
    ]


def test_best_merge_of_a_column_is_marked(reports):
    results = json.loads((reports / "full" / "results.json").read_text())
    table = results_table(results)
    for column, key, choose in ((5, "accuracy", max), (7, "loss", min)):
        best = choose(of_all_experts(results), key=lambda m: m["average"][key])["name"]
        marked = [row[0].text for row in table.rows if row[column].mark == "best"]
        assert marked == [best]


def test_best_merge_is_one_of_all_experts(reports):
    results = json.loads((reports / "full" / "results.json").read_text())
    one = next(m for m in results["models"] if m["name"] == "fisher_1")
    one["average"]["accuracy"] = 1.0
    marked = [row[0].text for row in results_table(results).rows if row[5].mark]
    assert len(marked) == 1 and marked != ["fisher_1"]


def test_equal_means_are_all_best(reports):
    """Whatever their standard errors; equal is what the table shows as equal."""
    results = json.loads((reports / "seeds" / "results.json").read_text())
    models = {m["name"]: m for m in results["models"]}
    for name, accuracy, error in (("linear", 0.99901, 0.01), ("fisher", 0.999, 0.02)):
        models[name]["average"]["accuracy"] = accuracy
        models[name]["standard_error"]["average"]["accuracy"] = error
    rows = [row for row in results_table(results).rows if row[5].mark == "best"]
    assert [row[0].text for row in rows] == ["linear", "fisher"]
    assert [row[5].text for row in rows] == ["99.9 ± 1.0", "99.9 ± 2.0"]


def test_removal_over_seeds_has_standard_errors(reports):
    results = json.loads((reports / "seeds" / "results.json").read_text())
    removal = results["removal"]
    table = removal_table(removal)
    for row, model in zip(table.rows, removal["models"], strict=True):
        expected = [
            f"{factor * model[part][key]:.{places}f}"
            f" ± {factor * model['standard_error'][part][key]:.{places}f}"
            for part in report_runs.PARTS
            for key, factor, places in (
                ("accuracy", 100, 1),
                ("loss", 1, 3),
                ("distance", 1, 3),
            )
        ]
        assert [cell.text for cell in row[2:8]] == expected
        assert html.escape(expected[0]) in page(reports, "seeds")
    # A run of one seed has none.
    removal = json.loads((reports / "full" / "results.json").read_text())["removal"]
    assert not [c for row in removal_table(removal).rows for c in row if "±" in c.text]


def test_costs_of_merges(reports):
    results = json.loads((reports / "full" / "results.json").read_text())
    table = results_table(results)
    assert [title for title, _ in table.titles[-3:]] == ["examples", "seconds", "MB"]
    for row, model in zip(table.rows, results["models"], strict=True):
        is_merge = model["kind"] == "merge"
        expected = ["1800", "60.2", "272.0"] if is_merge else ["", "", ""]
        assert [cell.text for cell in row[-3:]] == expected


def test_summary_is_computed(reports):
    outcome = Outcome(reports / "full")
    merged = {m["name"]: m["average"] for m in of_all_experts(outcome.results)}
    best = max(merged, key=lambda name: merged[name]["accuracy"])
    text = " ".join(summary(outcome.results))
    counted = f"{len(merged) - 1} merges of all experts and 1 refined merge"
    assert f"Of {counted} on 3 test sets" in text
    assert f"{best} is the most accurate" in text
    assert f"{100 * merged[best]['accuracy']:.1f} %" in text
    assert "output, gradient_matching," in text
    assert html.escape(text, quote=False)[:60] in page(reports, "full")
    # Another table, another sentence.
    merged["linear"].update(accuracy=0.999, loss=0.001)
    text = " ".join(summary(outcome.results))
    assert (
        "linear is the most accurate and has the lowest loss: 99.9 %, loss 0.001"
        in text
    )


def test_pairs_turned_around():
    pair = {
        "a": "x",
        "b": "y",
        "sets": {"s": {"only_a": 3, "only_b": 1, "mcnemar_p": 0.6}},
        "average": {"difference": 0.02, "low": -0.01, "high": 0.05, "p": 0.2},
        "accuracy_over_examples": {"difference": 0.1, "low": 0, "high": 0.2, "p": 0},
        "loss": {"difference": -0.3, "standard_error": 0.1},
    }
    (same,) = against([pair], "y")
    assert same == pair
    (turned,) = against([pair], "x")
    assert (turned["a"], turned["b"]) == ("y", "x")
    assert turned["sets"]["s"] == {"only_a": 1, "only_b": 3, "mcnemar_p": 0.6}
    expected = {"difference": -0.02, "low": -0.05, "high": 0.01, "p": 0.2}
    assert turned["average"] == expected
    assert turned["loss"] == {"difference": 0.3, "standard_error": 0.1}
    assert against([pair], "z") == []


def test_provenance(reports):
    for name, label in (("full", "train base"), ("seeds", "seed 2: train base")):
        text = page(reports, name)
        assert label in text and f"{1:032x}" in text
        assert "&lt;b&gt;not a tag&lt;/b&gt; &amp; more" in text


def test_same_results_give_the_same_page(reports):
    before = page(reports, "full")
    write_report(reports / "full")
    assert page(reports, "full") == before


def report(*arguments):
    module = [sys.executable, "-m", "merganser.report", *map(str, arguments)]
    return subprocess.run(module, capture_output=True, text=True, check=False)


def test_command(tmp_path):
    """The executable starts Python with the package, from any directory."""
    report_runs.make(tmp_path / "out", full=False)
    path = tmp_path / "out" / "report.html"
    done = command.run("report", tmp_path / "out")
    assert done.stdout == f"{path}\n" and done.stderr == ""
    done = command.run("report", "--json", "--quiet", tmp_path / "out")
    assert json.loads(done.stdout) == {"report": str(path)}
    assert "OUT" in command.run("report", "--help").stdout
    done = command.run("report", check=False)
    assert done.returncode == 2
    assert done.stderr == (
        "merganser: the following arguments are required: OUT "
        "(see merganser report --help)\n"
    )


@pytest.mark.parametrize("text", [None, "{", "{}"], ids=["missing", "broken", "empty"])
def test_bad_input(tmp_path, text):
    if text is not None:
        (tmp_path / "results.json").write_text(text)
    done = report(tmp_path)
    assert done.returncode == 2
    assert "results.json: " in done.stderr and len(done.stderr.splitlines()) == 1
    if text is None:
        remedy = f"run `merganser run EXPERIMENT.yaml {tmp_path}` to its end first\n"
        assert done.stderr.endswith(f"results.json: does not exist; {remedy}")
    assert not (tmp_path / "report.html").exists()
