"""`mismatch: true` in an experiment: stages, results and the table."""

import json

import pytest
import tiny_experiment
from command import run

pytestmark = pytest.mark.slow

MEASURED = [*tiny_experiment.TRAINED, *tiny_experiment.MERGES]


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    """An experiment that ran without mismatches, and then again with them."""
    folder = tmp_path_factory.mktemp("experiment")
    path = tiny_experiment.make(folder)
    run("run", path, folder / "out", "-q")
    path.write_text(path.read_text() + "mismatch: true\n")
    done = run("run", path, folder / "out")
    return folder, done


def test_only_the_mismatches_run(experiment):
    _, done = experiment
    ran = [line for line in done.stderr.splitlines() if " done in " in line]
    stages = [line.split(" done in ")[0].rstrip() for line in ran]
    assert stages == [f"mismatch {name}" for name in MEASURED]


def test_results(experiment):
    folder, done = experiment
    results = json.loads((folder / "out" / "results.json").read_text())
    assert [model["name"] for model in results["models"]] == MEASURED
    for model in results["models"]:
        found = model["mismatch"]
        assert [row["task"] for row in found["tasks"]] == ["amazon", "nyt"]
        assert found["total"]["rest"]["h0_inverse_norm"] > 0
        assert "bert.encoder.layer.1 attention" in found["total"]["groups"]
        assert ("target_identity" in found) == (model["name"] == "target")
    header, *rows = done.stdout.lstrip().splitlines()
    assert header.split()[-3:] == ["mismatch", "in", "1/H0"]
    table = {row.split()[0]: row.split() for row in rows if row.strip()}
    mismatch = results["models"][-1]["mismatch"]["total"]["mismatch"]
    cells = table["gradient_matching"][-2:]
    assert float(cells[0]) == pytest.approx(mismatch["norm"], rel=1e-3)
    assert float(cells[1]) == pytest.approx(mismatch["h0_inverse_norm"], rel=1e-3)


def expect_the_commands(folder, limit):
    """The results of `linear` are those of the command with this limit."""
    out = folder / "out"
    arguments = ["--base", out / "models/base"]
    arguments += ["--base-fisher", out / "fishers/base.safetensors"]
    for name in ("amazon", "nyt"):
        arguments += ["--expert", out / "models" / name]
        arguments += ["--data", folder / f"{name}-train.jsonl"]
        arguments += ["--fisher", out / f"fishers/{name}.safetensors"]
    arguments += ["--model", out / "merges/linear/model"]
    arguments += ["--limit", limit, "--seed", 3, "--max-length", 12, "--json", "-q"]
    total = json.loads(run("mismatch", *arguments).stdout)["models"][0]["total"]
    results = json.loads((out / "results.json").read_text())
    (linear,) = (m for m in results["models"] if m["name"] == "linear")
    for key in ("mismatch", "explained", "rest"):
        expected = linear["mismatch"]["total"][key]["norm"]
        assert total[key]["norm"] == pytest.approx(expected, rel=1e-6)


def test_equals_the_command(experiment):
    folder, _ = experiment
    expect_the_commands(folder, limit=20)


def test_the_next_run_is_cached(experiment):
    folder, _ = experiment
    again = run("run", folder / "experiment.yaml", folder / "out")
    assert " done in " not in again.stderr


def test_limit(experiment):
    folder, _ = experiment
    limited = ["--set", "mismatch={limit: 7}", "-q"]
    run("run", folder / "experiment.yaml", folder / "out", *limited)
    expect_the_commands(folder, limit=7)


@pytest.mark.parametrize("value", ["some", "{}", "{limit: 0}", "{limit: 2, of: 3}"])
def test_other_values_are_refused(tmp_path, value):
    path = tiny_experiment.make(tmp_path)
    path.write_text(path.read_text() + f"mismatch: {value}\n")
    done = run("run", path, tmp_path / "out", check=False)
    assert done.returncode == 2
    assert "mismatch" in done.stderr
