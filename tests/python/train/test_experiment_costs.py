"""What each merge of an experiment costs, and merges whose subspace has directions."""

import json

import pytest
import tiny_experiment
import yaml
from command import run
from safetensors import safe_open

pytestmark = pytest.mark.slow

USED = 20  # `fisher.limit` of tiny_experiment
MERGES = """\
merges:
  - {name: linear, method: linear}
  - {name: fisher, method: fisher}
  - {name: of_one, method: fisher_base, experts: [nyt]}
  - {name: regmean, method: regmean}
  - {name: no_data, method: regmean, gram: task_vectors}
  - {name: scaled, method: fisher, parameters: {fisher_scale: auto}}
  - {name: best, method: fisher, weight: {sweep: [0.5, 1]}}
  - name: directed
    method: subspace_gradient_matching
    directions: [fisher, no_data]
"""
EXPERTS = ["amazon", "nyt"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("costs")
    path = tiny_experiment.make(folder)
    text = path.read_text()
    merges = text[text.index("merges:") : text.index("output:")]
    for old, new in (
        (merges, MERGES),
        ("seed: 3\n", "seed: 3\nvalidation: 16\n"),
        ("output: gradient_matching", "output: directed"),
    ):
        assert old in text
        text = text.replace(old, new)
    path.write_text(text)
    run("run", path, folder / "out", "-q")
    return folder


@pytest.fixture(scope="module")
def results(folder):
    return json.loads((folder / "out" / "results.json").read_text())


def fishers(*names):
    return [f"fisher {name}" for name in names]


# Per merge: models whose training examples it uses, validation examples, stages, files.
EXPECTED = {
    "linear": ([], 0, [], []),
    "fisher": (EXPERTS, 0, fishers(*EXPERTS), ["fishers/amazon", "fishers/nyt"]),
    # The base's Fisher and the expert's.
    "of_one": (
        ["base", "nyt"],
        0,
        fishers("base", "nyt"),
        ["fishers/base", "fishers/nyt"],
    ),
    "regmean": (
        EXPERTS,
        0,
        ["gram amazon", "gram nyt"],
        ["grams/amazon", "grams/nyt"],
    ),
    "no_data": ([], 0, [], []),
    # A calibrated copy of a Fisher also takes the Fisher and the average.
    "scaled": (
        EXPERTS,
        0,
        [*fishers(*EXPERTS), "average", "calibrate amazon", "calibrate nyt"],
        ["calibrated/amazon", "calibrated/nyt"],
    ),
    "best": (
        EXPERTS,
        16 * len(tiny_experiment.SETS),
        [*fishers(*EXPERTS), "sweep best 0.5", "sweep best 1"],
        ["fishers/amazon", "fishers/nyt"],
    ),
    # The examples of Fisher and subspace are the same.
    "directed": (
        ["base", *EXPERTS],
        0,
        [*fishers(*EXPERTS), "subspace", "merge fisher", "merge no_data"],
        ["fishers/amazon", "fishers/nyt", "subspace"],
    ),
}


def test_costs(folder, results):
    seconds = {stage["name"]: stage["seconds"] for stage in results["stages"]}
    merges = {m["name"]: m for m in results["models"] if m["kind"] == "merge"}
    assert merges.keys() == EXPECTED.keys()
    for name, (models, validation, stages, files) in EXPECTED.items():
        cost = merges[name]["cost"]
        assert cost["examples"] == USED * len(models) + validation, name
        expected = sum(seconds[stage] for stage in [f"merge {name}", *stages])
        assert cost["seconds"] == pytest.approx(expected), name
        paths = [folder / "out" / f"{file}.safetensors" for file in files]
        assert cost["bytes"] == sum(path.stat().st_size for path in paths), name
    assert not any("cost" in m for m in results["models"] if m["kind"] != "merge")


def test_costs_of_a_resumed_run_are_those_of_its_stages(folder, results):
    run("run", folder / "experiment.yaml", folder / "out", "-q")
    again = json.loads((folder / "out" / "results.json").read_text())
    assert again["models"] == results["models"]


def test_directions_are_models_of_the_recipe(folder):
    recipe = yaml.safe_load((folder / "out/merges/directed/recipe.yaml").read_text())
    models = [entry["model"] for entry in recipe["models"]]
    assert models == [
        "../../models/amazon",
        "../../models/nyt",
        "../../merges/fisher/model",
        "../../merges/no_data/model",
    ]
    with safe_open(folder / "out/subspace.safetensors", "pt") as file:
        subspace = json.loads(file.metadata()["subspace"])
        columns = file.get_slice("base.fisher").get_shape()[-1]
    assert columns == len(models) * len(subspace["groups"])


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[fisher, no_data]", "[missing]", "got 'missing'"),
        ("[fisher, no_data]", "[directed]", "got 'directed'"),
        ("[fisher, no_data]", "[fisher, fisher]", "'fisher' is given twice"),
        (
            "fisher_base, experts: [nyt]",
            "fisher_base, directions: [linear]",
            "span a subspace, which fisher_base does not use",
        ),
    ],
)
def test_wrong_directions(folder, tmp_path, old, new, message):
    path = folder / "wrong.yaml"
    text = (folder / "experiment.yaml").read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    done = run("run", path, tmp_path / "out", check=False)
    assert done.returncode == 2
    assert message in done.stderr
    assert not (tmp_path / "out").exists()
