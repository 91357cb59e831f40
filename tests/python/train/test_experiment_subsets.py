"""Merges of some of an experiment's experts."""

import json

import pytest
import tiny_experiment
import torch
from command import run
from merganser import report
from safetensors.torch import load_file

pytestmark = pytest.mark.slow  # of the experiment in its fixture

METHODS = ["task_arithmetic", "fisher", "gradient_matching"]
MERGES = """\
merges:
  - {name: task_arithmetic_of_1, method: task_arithmetic, experts: [nyt]}
  - {name: fisher_of_1, method: fisher, experts: [nyt]}
  - {name: gradient_matching_of_1, method: gradient_matching, experts: [nyt]}
  - {name: subspace_of_1, method: subspace_gradient_matching, experts: [nyt]}
  - name: turned
    method: linear
    experts: [nyt, amazon]
    weight: {nyt: 3, amazon: 1}
  - {name: task_arithmetic, method: task_arithmetic}
  - {name: fisher, method: fisher}
  - {name: gradient_matching, method: gradient_matching}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("subsets")
    path = tiny_experiment.make(folder)
    text = path.read_text()
    merges = text[text.index("merges:") : text.index("output:")]
    path.write_text(text.replace(merges, MERGES))
    run("run", path, folder / "out", "-q")
    return folder


@pytest.fixture(scope="module")
def results(folder):
    return json.loads((folder / "out" / "results.json").read_text())


def tensors(directory):
    return load_file(directory / "model.safetensors")


def test_results_name_method_and_experts(results):
    found = {
        model["name"]: (model["method"], model["experts"])
        for model in results["models"]
        if model["kind"] == "merge"
    }
    expected = {f"{method}_of_1": (method, ["nyt"]) for method in METHODS}
    expected |= {method: (method, ["amazon", "nyt"]) for method in METHODS}
    expected["subspace_of_1"] = ("subspace_gradient_matching", ["nyt"])
    expected["turned"] = ("linear", ["nyt", "amazon"])
    assert found == expected
    trained = [model for model in results["models"] if model["kind"] != "merge"]
    assert not any("method" in model or "experts" in model for model in trained)


def test_one_expert_is_its_merge(folder):
    """With one model and weight 1 these rules return it."""
    expert = tensors(folder / "out/models/nyt")
    for method in METHODS:
        merged = tensors(folder / f"out/merges/{method}_of_1/model")
        torch.testing.assert_close(merged, expert, rtol=1e-6, atol=1e-7)


def test_weights_belong_to_their_experts(folder):
    amazon, nyt = (tensors(folder / "out/models" / name) for name in ("amazon", "nyt"))
    expected = {name: 0.75 * nyt[name] + 0.25 * amazon[name] for name in nyt}
    merged = tensors(folder / "out/merges/turned/model")
    torch.testing.assert_close(merged, expected, rtol=1e-6, atol=1e-7)


def test_the_gap_begins_at_the_merge_of_all(results):
    assert results["gap"]["from"] == "task_arithmetic"


def test_subspace_uses_the_columns_of_its_experts(folder, tmp_path):
    """As with a subspace Fisher of these experts alone; with one point, the Fishers do
    not depend on the other experts."""
    base = ["--base", folder / "out/models/base"]
    base += ["--base-data", folder / "movie-train.jsonl"]
    options = ["--limit", 20, "--seed", 3, "--max-length", 12, "--points", 1, "-q"]
    text = (folder / "out/merges/subspace_of_1/recipe.yaml").read_text()
    merged = {}
    for experts in (("nyt",), ("amazon", "nyt")):
        here = tmp_path / "-".join(experts)
        here.mkdir()
        chosen = []
        for name in experts:
            chosen += ["--expert", folder / "out/models" / name]
            chosen += ["--data", folder / f"{name}-train.jsonl"]
        run("subspace", *base, *chosen, *options, "--out", here / "file.safetensors")
        recipe = here / "recipe.yaml"
        recipe.write_text(
            text.replace("../../subspace.safetensors", "file.safetensors").replace(
                "../..", str(folder / "out")
            )
        )
        run("merge", recipe, here / "merged", "-q")
        merged[experts] = tensors(here / "merged")
    alone, columns = merged.values()
    torch.testing.assert_close(columns, alone)


def test_report_draws_growing_merges(results):
    axis = report.plot_growing(results).axes[0]
    assert [bars.get_label() for bars in axis.containers] == METHODS
    assert [list(bars[0].get_xdata()) for bars in axis.containers] == [[1, 2]] * 3
