"""Experiments with the merges that measure gradients: what they add to an experiment
that ran without them, and that it equals the commands'."""

import json

import merganser
import pytest
import tiny_experiment
from command import run

pytestmark = pytest.mark.slow

ADDED = """\
  - {name: measured, method: measured_gradient_matching}
  - {name: auto, method: task_arithmetic, weight: auto}
  - {name: subspace, method: subspace_gradient_matching, weight: {sweep: [0.5, 1]}}
  - name: directions
    method: subspace_gradient_matching
    directions: [measured]
  - {name: auto_wide, method: task_arithmetic, weight: auto, directions: [measured]}
"""
EXPERTS = ("amazon", "nyt")


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    folder = tmp_path_factory.mktemp("experiment")
    path = tiny_experiment.make(folder)
    path.write_text(path.read_text() + "validation: 20\n")
    run("run", path, folder / "out", "-q")
    before = {
        name: merganser.FisherResult.load(
            folder / "out" / "fishers" / f"{name}.safetensors"
        ).task_vector
        for name in EXPERTS
    }
    assert before == dict.fromkeys(EXPERTS)
    assert not (folder / "out" / "subspace.safetensors").exists()
    text = path.read_text()
    path.write_text(text.replace("output:", ADDED + "output:"))
    return folder, run("run", path, folder / "out")


def stages(done):
    ran = [line for line in done.stderr.splitlines() if " done in " in line]
    return [line.split(" done in ")[0].strip() for line in ran]


def test_only_what_the_merges_need_runs(experiment):
    folder, done = experiment
    fishers = [f"fisher {name}" for name in EXPERTS]
    new = ["merge measured", "evaluate measured", "merge subspace", "evaluate subspace"]
    new += ["merge auto", "evaluate auto", "merge directions", "evaluate directions"]
    new += ["merge auto_wide", "evaluate auto_wide"]
    new += ["sweep subspace 0.5", "sweep subspace 1", "subspace", *fishers]
    ran = stages(done)
    assert set(new) <= set(ran)
    assert not [stage for stage in ran if stage.startswith("train")]
    again = run("run", folder / "experiment.yaml", folder / "out")
    assert stages(again) == []


def test_equals_the_commands(experiment, tmp_path):
    folder, _ = experiment
    out = folder / "out"
    common = ["--limit", 20, "--seed", 3, "--max-length", 12, "-q"]
    base = ["--base", out / "models/base"]
    base += ["--base-data", out / "data/movie/train.jsonl"]
    of_experts = []
    for name in EXPERTS:
        data = ["--data", out / f"data/{name}/train.jsonl"]
        of_experts += ["--expert", out / "models" / name, *data]
        file = tmp_path / f"{name}.safetensors"
        run(
            *("fisher", "--model", out / "models" / name, *data, *base, *common),
            *("--out", file),
        )
        assert file.read_bytes() == (out / "fishers" / file.name).read_bytes()
    file = tmp_path / "subspace.safetensors"
    direction = ["--direction", out / "merges/measured/model"]
    run("subspace", *base, *of_experts, *direction, *common, "--out", file)
    assert file.read_bytes() == (out / file.name).read_bytes()


def test_the_table_has_them(experiment):
    folder, done = experiment
    results = json.loads((folder / "out" / "results.json").read_text())
    names = [model["name"] for model in results["models"]]
    assert names[-5:] == ["measured", "auto", "subspace", "directions", "auto_wide"]
    assert "subspace" in done.stdout
    recipe = folder / "out" / "merges" / "measured" / "recipe.yaml"
    plan = json.loads(run("plan", recipe, "--json").stdout)
    assert all("rho_measured" in model for model in plan["models"])
