"""`removal` in an experiment: stages, results, the table and bad inputs."""

import json

import pytest
import tiny_experiment
import torch
from command import run
from repository import ROOT
from safetensors.torch import load_file

pytestmark = pytest.mark.slow

DOCUMENT = ROOT / "docs" / "experiments.md"
REMOVAL = """\
removal:
  data: nyt
  merges:
    - {name: negation, method: task_arithmetic, weight: -0.5}
    - {name: removal, method: removal, weight: 0.5}
"""
STAGES = [
    "fisher target",
    "train removal_expert",
    "fisher removal_expert",
    "merge negation",
    "merge removal",
    "train retrained",
    *(f"evaluate {name}" for name in ("retrained", "negation", "removal")),
    *(f"compare {name}" for name in ("target", "negation", "removal")),
]


def ran(done):
    lines = [line for line in done.stderr.splitlines() if " done in " in line]
    return [line.split(" done in ")[0].rstrip() for line in lines]


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    """An experiment that ran without the removal, and then again with it."""
    folder = tmp_path_factory.mktemp("removal")
    path = tiny_experiment.make(folder)
    run("run", path, folder / "out", "-q")
    path.write_text(path.read_text() + REMOVAL)
    return folder, run("run", path, folder / "out")


@pytest.fixture(scope="module")
def rows(experiment):
    results = json.loads((experiment[0] / "out" / "results.json").read_text())
    assert results["removal"]["data"] == "nyt"
    assert results["removal"]["from"] == "target"
    return {row["name"]: row for row in results["removal"]["models"]}


def state(folder, name):
    return load_file(folder / "out" / name / "model.safetensors")


def probabilities(folder, path, data):
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(folder / "out" / path)
    tokenizer = AutoTokenizer.from_pretrained(folder / "out" / path)
    lines = (folder / f"{data}-test.jsonl").read_text().splitlines()
    inputs = tokenizer(
        [json.loads(line)["text"] for line in lines],
        truncation=True,
        max_length=12,
        padding=True,
        return_tensors="pt",
    )
    with torch.no_grad():
        return model.eval()(**inputs).logits.double().softmax(1)


def test_example_is_the_documented_one():
    if not DOCUMENT.exists():
        pytest.skip("no docs: the tests run away from their clone")
    assert f"```yaml\n{REMOVAL}```" in DOCUMENT.read_text(encoding="utf-8")


def test_seeds_have_means_and_standard_errors(experiment, tmp_path):
    path = experiment[0] / "seeds.yaml"
    text = (experiment[0] / "experiment.yaml").read_text()
    assert "seed: 3\n" in text
    path.write_text(text.replace("seed: 3\n", "seeds: [3, 5]\n"))
    run("run", path, tmp_path / "out", "-q")
    common, *seeds = (
        json.loads((tmp_path / "out" / part / "results.json").read_text())["removal"]
        for part in ("", "seeds/3", "seeds/5")
    )
    for i, row in enumerate(common["models"]):
        parts = [one["models"][i] for one in seeds]
        assert row["name"] == parts[0]["name"]
        assert "path" not in row
        for key in ("removed", "rest"):
            for quantity in ("accuracy", "loss", "distance"):
                a, b = (part[key][quantity] for part in parts)
                error = row["standard_error"][key][quantity]
                assert row[key][quantity] == pytest.approx((a + b) / 2)
                assert error == pytest.approx(abs(a - b) / 2)


def test_only_the_removal_runs(experiment):
    assert ran(experiment[1]) == STAGES


def test_the_next_run_is_cached(experiment):
    folder, _ = experiment
    assert ran(run("run", folder / "experiment.yaml", folder / "out")) == []


def test_negation_subtracts_the_task_vector(experiment):
    folder, _ = experiment
    start = state(folder, "models/target")
    expert = state(folder, "models/removal_expert")
    found = state(folder, "merges/negation/model")
    for name, theta in start.items():
        expected = theta - 0.5 * (expert[name] - theta)
        torch.testing.assert_close(found[name], expected, rtol=0, atol=1e-6)


def test_removal_takes_fishers_of_all_data_and_of_the_removed(experiment):
    from merganser import FisherResult

    folder, _ = experiment
    base = FisherResult.load(folder / "out/fishers/target.safetensors")
    own = FisherResult.load(folder / "out/fishers/removal_expert.safetensors")
    assert (base.num_examples, base.num_examples_used) == (3 * 128, 3 * 20)
    assert (own.num_examples, own.num_examples_used) == (128, 20)
    start = state(folder, "models/target")
    expert = state(folder, "models/removal_expert")
    found = state(folder, "merges/removal/model")
    clamped = elements = largest = 0
    for name, theta in start.items():
        h0, h = base.H[name].double() + 1e-12, own.H[name].double()
        low = h0 - 0.5 * h < 0.05 * (h0 + 0.5 * h)
        clamped += low.sum().item()
        elements += low.numel()
        weight = torch.where(low, 0.5, 0.5 * (h0 + h) / (h0 - 0.5 * h))
        largest = max(largest, weight.max().item())
        expected = theta - weight * (expert[name] - theta).double()
        torch.testing.assert_close(found[name], expected.float(), rtol=1e-5, atol=1e-5)
    results = json.loads((folder / "out" / "results.json").read_text())
    (row,) = (r for r in results["removal"]["models"] if "clamped_fraction" in r)
    assert row["name"] == "removal"
    assert row["clamped_fraction"] == pytest.approx(clamped / elements, abs=1e-3)
    assert row["largest_weight"] == pytest.approx(largest, rel=1e-4)


def test_retrained_is_the_target_without_the_set(experiment):
    """An experiment with this target, from the same base, trains the same model."""
    folder, _ = experiment
    path = folder / "target.yaml"
    target = "target: {epochs: 1, data: [movie, amazon]}"
    path.write_text(tiny_experiment.YAML.replace("target: {epochs: 1}", target))
    run("run", path, folder / "other", "-q")
    expected = load_file(folder / "other/models/target/model.safetensors")
    found = state(folder, "models/retrained")
    assert all(torch.equal(found[name], x) for name, x in expected.items())


def test_accuracy_and_loss_on_the_removed_and_the_rest(experiment, rows):
    folder, _ = experiment
    kinds = {name: row["kind"] for name, row in rows.items()}
    assert kinds == {
        "target": "target",
        "retrained": "retrained",
        "negation": "removal",
        "removal": "removal",
    }
    for name, row in rows.items():
        sets = json.loads((folder / f"out/evaluations/{name}.json").read_text())
        for key in ("accuracy", "loss"):
            assert row["removed"][key] == pytest.approx(sets["nyt"][key])
            rest = (sets["movie"][key] + sets["amazon"][key]) / 2
            assert row["rest"][key] == pytest.approx(rest)
            assert row["sets"]["movie"][key] == pytest.approx(sets["movie"][key])


def test_distances_are_those_of_transformers(experiment, rows):
    folder, _ = experiment
    for row in rows.values():
        found = {name: scores["distance"] for name, scores in row["sets"].items()}
        for data, distance in found.items():
            p = probabilities(folder, row["path"], data)
            q = probabilities(folder, "models/retrained", data)
            expected = (p - q).abs().sum(1).mean().item() / 2
            assert distance == pytest.approx(expected, abs=1e-5)
        assert row["removed"]["distance"] == found["nyt"]
        rest = (found["movie"] + found["amazon"]) / 2
        assert row["rest"]["distance"] == pytest.approx(rest)
    assert rows["retrained"]["removed"]["distance"] == 0
    assert rows["negation"]["removed"]["distance"] > 0


def test_table(experiment, rows):
    text = experiment[1].stdout.split("Removal of nyt from target")[1]
    table = {line.split()[0]: line.split() for line in text.splitlines() if line}
    for name, row in rows.items():
        expected = []
        for part in ("removed", "rest"):
            expected.append(f"{100 * row[part]['accuracy']:.1f}")
            expected += [f"{row[part][key]:.3f}" for key in ("loss", "distance")]
        if "clamped_fraction" in row:
            expected.append(f"{100 * row['clamped_fraction']:.2f}")
            expected.append(f"{row['largest_weight']:.3g}")
        assert table[name][1:] == expected


def test_from_a_merge_with_own_training_of_the_expert(experiment):
    folder, _ = experiment
    path = folder / "merge.yaml"
    changed = REMOVAL.replace(
        "data: nyt", "data: nyt\n  from: linear\n  expert: {epochs: 1, proximal: 1}"
    )
    path.write_text(tiny_experiment.YAML + changed)
    done = run("run", path, folder / "out")
    expected = ["fisher linear", *STAGES[1:5], *STAGES[7:9], "compare linear"]
    assert ran(done) == [*expected, *STAGES[10:]]  # the retrained model is the same
    results = json.loads((folder / "out" / "results.json").read_text())["removal"]
    names = [row["name"] for row in results["models"]]
    assert names == ["linear", "retrained", "negation", "removal"]
    start = state(folder, "merges/linear/model")
    expert = state(folder, "models/removal_expert")
    found = state(folder, "merges/negation/model")
    name = "classifier.weight"
    difference = start[name] - 0.5 * (expert[name] - start[name])
    torch.testing.assert_close(found[name], difference, rtol=0, atol=1e-6)
    training = next(
        s for s in json.loads((folder / "out" / "results.json").read_text())["stages"]
        if s["name"] == "train removal_expert"
    )  # fmt: skip
    assert training["inputs"]["epochs"] == 1
    assert training["inputs"]["proximal"] is not None


# Text of REMOVAL to replace, its replacement, and text in the message. The reported
# position is that of MARK in the replacement.
MARK = "¦"
CASES = {
    "unknown key": ("data: nyt", f"data: nyt\n  {MARK}form: x", "unknown key 'form'"),
    "no data": ("  data: nyt\n", "", "'data' is missing"),
    "unknown set": ("data: nyt", f"data: {MARK}yelp", "unknown data set 'yelp'"),
    "the base's set": ("data: nyt", f"data: {MARK}movie", "base, which is trained on"),
    "unknown model": (
        "data: nyt",
        f"data: nyt\n  from: {MARK}base",
        "target or the name of a merge, got 'base'",
    ),
    "unknown training key": (
        "data: nyt",
        f"data: nyt\n  expert: {{{MARK}rate: 1}}",
        "unknown key 'rate'",
    ),
    "no merges": (REMOVAL.split("\n", 2)[2], "", "'merges' is missing"),
    "an addition": (
        "task_arithmetic, weight: -0.5",
        f"{MARK}task_arithmetic",
        "task_arithmetic would not take the set out",
    ),
    "an average": ("method: removal", f"method: {MARK}linear", "use removal, ewr"),
    "negative weight": ("weight: 0.5", f"weight: {MARK}-0.5", "at least 0"),
    "name given twice": (
        "name: removal",
        f"name: {MARK}linear",
        "another model or merge has the name 'linear'",
    ),
    "reserved name": ("name: removal", f"name: {MARK}retrained", "'retrained'"),
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("errors")
    tiny_experiment.make(folder)
    return folder


def refuse(folder, text, message):
    path = folder / "bad.yaml"
    path.write_text(text.replace(MARK, ""))
    done = run("run", path, folder / "out", check=False)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert message in done.stderr
    assert f"{path}:" in done.stderr
    if MARK in text:
        lines = text[: text.index(MARK)].split("\n")
        assert f"{path}:{len(lines)}:{len(lines[-1]) + 1}: " in done.stderr
    assert not (folder / "out").exists()


@pytest.mark.parametrize("old, new, message", CASES.values(), ids=CASES)
def test_bad_removal(data, old, new, message):
    assert old in REMOVAL
    refuse(data, tiny_experiment.YAML + REMOVAL.replace(old, new, 1), message)


CHANGED_TARGETS = {
    "no target": ("target: {epochs: 1}\n", "", "add the key 'target'"),
    "another target": (
        "target: {epochs: 1}",
        "target: {data: [movie, amazon]}",
        "target is not trained on 'nyt'",
    ),
    "a target of the set alone": (
        "target: {epochs: 1}",
        "target: {data: [nyt]}",
        "the target is trained on 'nyt' only",
    ),
    "a name in use": (
        "name: linear",
        "name: removal_expert",
        "removal trains a model 'removal_expert'",
    ),
}


@pytest.mark.parametrize(
    "old, new, message", CHANGED_TARGETS.values(), ids=CHANGED_TARGETS
)
def test_removal_that_the_experiment_excludes(data, old, new, message):
    text = tiny_experiment.YAML
    assert old in text
    refuse(data, text.replace(old, new, 1) + REMOVAL, message)
