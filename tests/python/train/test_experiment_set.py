"""merganser run --set key=value."""

import json

import pytest
import tiny_experiment
import yaml
from command import run
from tiny_experiment import YAML


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tiny_experiment.make(tmp_path_factory.mktemp("set"))


def run_with(path, out, *assignments, **options):
    sets = [word for text in assignments for word in ("--set", text)]
    return run("run", path, out, *sets, **options)


@pytest.mark.slow
def test_values_are_replaced_and_added(path, tmp_path):
    assignments = {
        "base.epochs": "0.5",
        "evaluation.batch_size": "16",  # in a mapping that is missing
        "merges.1.weight": "{amazon: 1, nyt: 0.25}",
        "removal": "null",  # the same as a file without it
    }
    text = YAML.replace("base: {", "base: &base {")
    text = text.replace("target: {epochs: 1}", "target: {<<: *base, data: [nyt]}")
    path.write_text(text)
    out = tmp_path / "out"
    run_with(path, out, *(f"{k}={v}" for k, v in assignments.items()))
    expected = yaml.safe_load(text)
    expected["base"]["epochs"] = 0.5
    expected["evaluation"] = {"batch_size": 16}
    expected["merges"][1]["weight"] = {"amazon": 1, "nyt": 0.25}
    expected["removal"] = None
    # The anchor's other uses keep its value.
    assert expected["target"] == {"epochs": 3, "data": ["nyt"]}
    text = json.loads((out / "results.json").read_text())["experiment"]
    assert yaml.safe_load(text) == expected
    # The text is an experiment: it names the same stages.
    (path.parent / "effective.yaml").write_text(text)
    done = run("run", path.parent / "effective.yaml", out)
    assert " done in" not in done.stderr


BAD = {
    "unknown key": ("sead=4", "unknown key 'sead'"),
    "unknown key in a mapping": ("base.rate=4", "unknown key 'rate' in base"),
    "no value": ("seed", "expected key=value, got 'seed'"),
    "wrong type": ("base.epochs=many", "base.epochs must be a number, not 'many'"),
    "in a scalar": ("seed.x=4", "seed must be a mapping, not '3'"),
    "position": ("merges.9.weight=1", "between 0 and 4"),
    "no position": ("merges.fisher.weight=1", "an integer"),
    "not YAML": ("base={", "invalid YAML"),
}


@pytest.mark.slow
@pytest.mark.parametrize("assignment, message", BAD.values(), ids=BAD)
def test_bad_assignment(path, tmp_path, assignment, message):
    done = run_with(path, tmp_path / "out", assignment, check=False)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert message in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_limit_of_test_rows(path, tmp_path):
    """A sample of the larger test files, and later the whole ones: no model is trained
    or merged again."""
    path.write_text(
        YAML.replace("nyt-test.jsonl}", "nyt-test.jsonl, limit_test: 40}")
        + "evaluation: {limit: 25}\n"
    )
    out = tmp_path / "out"

    def rows():
        models = json.loads((out / "results.json").read_text())["models"]
        return {name: s["examples"] for name, s in models[0]["sets"].items()}

    run("run", path, out, "-q")
    assert rows() == {"movie": 25, "amazon": 25, "nyt": 40}
    # The whole of a file needs no copy.
    assert sorted(file.name for file in (out / "data").iterdir()) == ["amazon", "movie"]
    done = run_with(path, out, "evaluation.limit=null")
    assert rows() == {"movie": 40, "amazon": 40, "nyt": 40}
    lines = [line for line in done.stderr.splitlines() if " done in " in line]
    again = {line.split()[0] for line in lines}
    assert again == {"data", "evaluate", "comparisons"}
