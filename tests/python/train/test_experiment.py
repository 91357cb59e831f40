"""merganser run: results, the cache of stages, interruptions."""

import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import time

import pytest
import tiny_experiment
import torch
from command import executable, run
from tiny_experiment import MERGES, SETS, TRAINED, YAML

FISHERS = ["base", "amazon", "nyt"]
STAGES = [
    "data",
    *(f"train {name}" for name in TRAINED),
    *(f"fisher {name}" for name in FISHERS),
    *(f"merge {name}" for name in MERGES),
    *(f"evaluate {name}" for name in [*TRAINED, *MERGES]),
    "comparisons",
]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Directory of an experiment.yaml that ran without interruption into `out`."""
    folder = tmp_path_factory.mktemp("experiment")
    done = run("run", tiny_experiment.make(folder), folder / "out")
    (folder / "stdout").write_text(done.stdout)
    (folder / "stderr").write_text(done.stderr)
    return folder


@pytest.fixture
def copy(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "copy")


def results(folder):
    return json.loads((folder / "out" / "results.json").read_text())


def stages(stderr):
    """{"done": {stages that ran}, "cached": {...}} from the run's output."""
    said = {"done": set(), "cached": set()}
    for stage, how in re.findall(r"^(.+?) +(done|cached)\b", stderr, re.MULTILINE):
        said[how].add(stage)
    return said


def weights(out):
    return {
        path.relative_to(out): path.read_bytes()
        for path in sorted(out.rglob("*.safetensors"))
    }


def test_results_are_complete(finished):
    found = results(finished)
    assert found["sets"] == list(SETS)
    assert [(m["name"], m["kind"]) for m in found["models"]] == [
        ("base", "base"),
        ("amazon", "expert"),
        ("nyt", "expert"),
        ("target", "target"),
        *((name, "merge") for name in MERGES),
    ]
    for model in found["models"]:
        sets = model["sets"]
        assert list(sets) == list(SETS)
        assert {s["examples"] for s in sets.values()} == {40}
        for key in ("accuracy", "loss", "calibration_error"):
            mean = sum(s[key] for s in sets.values()) / 3
            assert model["average"][key] == pytest.approx(mean)
        assert (finished / "out" / model["path"] / "model.safetensors").exists()
    assert sorted(s["name"] for s in found["stages"]) == sorted(STAGES)
    assert found["seconds"] == pytest.approx(sum(s["seconds"] for s in found["stages"]))
    assert found["output"] == "merges/gradient_matching/model"
    assert found["experiment"] == YAML
    assert stages((finished / "stderr").read_text())["done"] == set(STAGES)


def test_experts_learn_their_sets(finished):
    models = {m["name"]: m["sets"] for m in results(finished)["models"]}
    for name in ("amazon", "nyt"):
        assert models[name][name]["accuracy"] > models["base"][name]["accuracy"]


def test_majority_is_that_of_the_test_sets(finished):
    for name, share in results(finished)["majority"].items():
        lines = (finished / f"{name}-test.jsonl").read_text().splitlines()
        labels = [json.loads(line)["label"] for line in lines]
        counts = [labels.count(0), labels.count(1)]
        assert share == pytest.approx(max(counts) / sum(counts))


def test_table_and_best_merges(finished):
    text = (finished / "stdout").read_text()
    found = results(finished)
    for model in found["models"]:
        row = next(r for r in text.splitlines() if r.split()[:1] == [model["name"]])
        numbers = [s["accuracy"] for s in model["sets"].values()]
        numbers.append(model["average"]["accuracy"])
        expected = [f"{100 * x:.1f}" for x in numbers]
        expected.append(f"{model['average']['loss']:.3f}")
        expected.append(f"{100 * model['average']['calibration_error']:.1f}")
        expected.append(f"{100 * model['retained']:.1f}")
        assert row.split()[2:] == expected
    merges = [m for m in found["models"] if m["kind"] == "merge"]
    best = max(merges, key=lambda m: m["average"]["accuracy"])["name"]
    least = min(merges, key=lambda m: m["average"]["loss"])["name"]
    assert found["best"] == {"accuracy": best, "loss": least}
    assert re.search(rf"average accuracy: {best} .* loss: {least} ", text)


@pytest.mark.slow
def test_second_run_does_nothing(finished):
    before = {p: p.stat().st_mtime_ns for p in (finished / "out").rglob("*")}
    text = (finished / "out" / "results.json").read_text()
    done = run("run", finished / "experiment.yaml", finished / "out")
    assert stages(done.stderr) == {"done": set(), "cached": set(STAGES)}
    assert (finished / "out" / "results.json").read_text() == text
    changed = {
        str(p.relative_to(finished / "out"))
        for p in (finished / "out").rglob("*")
        if before.get(p) != p.stat().st_mtime_ns
    }
    assert changed <= {"results.json"}


@pytest.mark.slow
@pytest.mark.parametrize("text", ["", "[]", '{"inputs": 1, "output": 5}', '{"/x": 5}'])
def test_damaged_memory_is_no_memory(finished, text):
    for file in ("train-base.json", "hashes.json"):
        (finished / "out" / ".stages" / file).write_text(text)
    before = (finished / "out" / "models" / "base" / "model.safetensors").read_bytes()
    done = run("run", finished / "experiment.yaml", finished / "out")
    assert "train base" in stages(done.stderr)["done"]
    model = finished / "out" / "models" / "base" / "model.safetensors"
    assert model.read_bytes() == before


def replace(old, new):
    def edit(folder):
        path = folder / "experiment.yaml"
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))

    return edit


def append_example(file):
    def edit(folder):
        with open(folder / file, "a") as lines:
            lines.write('{"text": "w1 bright", "label": 1}\n')

    return edit


def remove(path):
    return lambda folder: (folder / "out" / path).unlink()


def write(path):
    return lambda folder: (folder / "out" / path).write_text("{}")


def names(kind, models):
    return {f"{kind} {model}" for model in models}


WITH_FISHERS = ["fisher", "fisher_base", "gradient_matching"]
CHANGES = {
    "one merge's weight": (
        replace("weight: 0.5}", "weight: 0.25}"),
        names("merge", ["task_arithmetic"])
        | names("evaluate", ["task_arithmetic"])
        | {"comparisons"},
    ),
    "a merge's parameter": (
        replace("1.0e-10", "1.0e-3"),
        names("merge", ["gradient_matching"])
        | names("evaluate", ["gradient_matching"])
        | {"comparisons"},
    ),
    "the experts' training": (
        replace("epochs: 8", "epochs: 1"),
        names("train", ["amazon", "nyt"])
        | names("fisher", ["amazon", "nyt"])
        | names("merge", MERGES)
        | names("evaluate", ["amazon", "nyt", *MERGES])
        | {"comparisons"},
    ),
    "the target's training": (
        replace("target: {epochs: 1}", "target: {epochs: 1, proximal: 0.5}"),
        {"train target", "evaluate target", "comparisons"},
    ),
    "the Fishers": (
        replace("limit: 20", "limit: 30"),
        names("fisher", FISHERS)
        | names("merge", WITH_FISHERS)
        | names("evaluate", WITH_FISHERS)
        | {"comparisons"},
    ),
    "the Fishers' storage": (
        replace("limit: 20", "limit: 20, storage: factored"),
        names("fisher", FISHERS)
        | names("merge", WITH_FISHERS)
        | names("evaluate", WITH_FISHERS)
        | {"comparisons"},
    ),
    "an expert's data": (
        append_example("nyt-train.jsonl"),
        {"data", "train nyt", "train target", "fisher nyt"}
        | names("merge", MERGES)
        | names("evaluate", ["nyt", "target", *MERGES])
        | {"comparisons"},
    ),
    "a test set": (
        append_example("nyt-test.jsonl"),
        {"data", "comparisons"} | names("evaluate", [*TRAINED, *MERGES]),
    ),
    # The same bytes: no later stage runs again.
    "a lost model": (remove("models/nyt/model.safetensors"), {"train nyt"}),
    "a new companion": (write("models/nyt/generation_config.json"), {"train nyt"}),
    "a lost Fisher": (remove("fishers/base.safetensors"), {"fisher base"}),
    "a lost evaluation": (remove("evaluations/base.json"), {"evaluate base"}),
    "lost predictions": (remove("evaluations/nyt.safetensors"), {"evaluate nyt"}),
    "lost comparisons": (remove("comparisons.json"), {"comparisons"}),
}


@pytest.mark.slow
@pytest.mark.parametrize("edit, expected", CHANGES.values(), ids=CHANGES)
def test_only_what_depends_on_a_change_runs_again(copy, edit, expected):
    edit(copy)
    done = run("run", copy / "experiment.yaml", copy / "out")
    assert stages(done.stderr)["done"] == expected
    assert stages(done.stderr)["cached"] == set(STAGES) - expected


@pytest.mark.slow
def test_linearized_training(copy):
    """The weights of `merganser train --linearized` from the base."""
    replace("target: {epochs: 1}", "target: {epochs: 1, linearized: true}")(copy)
    done = run("run", copy / "experiment.yaml", copy / "out")
    assert stages(done.stderr)["done"] == {
        "train target",
        "evaluate target",
        "comparisons",
    }
    run(
        *("train", "--linearized", "--model", copy / "out" / "models" / "base"),
        *(x for name in SETS for x in ("--train", copy / f"{name}-train.jsonl")),
        *("--epochs", 1, "--lr", 0.003, "--batch-size", 8, "--max-length", 12),
        *("--seed", 3, "--out", copy / "trained"),
    )
    in_experiment = copy / "out" / "models" / "target" / "model.safetensors"
    by_hand = copy / "trained" / "model.safetensors"
    assert in_experiment.read_bytes() == by_hand.read_bytes()


@pytest.mark.slow
def test_changed_back_gives_the_same_bytes(copy):
    before = weights(copy / "out")
    replace("lr: 0.003", "lr: 0.001")(copy)
    run("run", copy / "experiment.yaml", copy / "out")
    assert weights(copy / "out") != before
    replace("lr: 0.001", "lr: 0.003")(copy)
    run("run", copy / "experiment.yaml", copy / "out")
    assert weights(copy / "out") == before


def test_recipe_can_be_merged_by_hand(finished, tmp_path):
    for name in MERGES:
        folder = finished / "out" / "merges" / name
        run("merge", folder / "recipe.yaml", tmp_path / name)
        by_hand = (tmp_path / name / "model.safetensors").read_bytes()
        assert by_hand == (folder / "model" / "model.safetensors").read_bytes()


@pytest.mark.slow
def test_transformers_agrees_with_the_results(finished):
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    for model in results(finished)["models"]:
        path = finished / "out" / model["path"]
        tokenizer = AutoTokenizer.from_pretrained(path)
        classifier = AutoModelForSequenceClassification.from_pretrained(path).eval()
        for name, stated in model["sets"].items():
            lines = (finished / f"{name}-test.jsonl").read_text().splitlines()
            examples = [json.loads(line) for line in lines]
            inputs = tokenizer(
                [e["text"] for e in examples],
                truncation=True,
                max_length=12,
                padding=True,
                return_tensors="pt",
            )
            labels = torch.tensor([e["label"] for e in examples])
            with torch.no_grad():
                logits = classifier(**inputs).logits
            accuracy = (logits.argmax(1) == labels).float().mean().item()
            assert stated["accuracy"] == pytest.approx(accuracy, abs=1e-6)
            loss = torch.nn.functional.cross_entropy(logits, labels).item()
            assert stated["loss"] == pytest.approx(loss, abs=1e-4)


def wait_for(process, path):
    """Returns when the path exists or the process has ended."""
    while process.poll() is None and not path.exists():
        time.sleep(0.002)


INTERRUPTIONS = {
    "checking data": ".stages/data.json",
    "training the base": "models/base.partial/state.safetensors",
    "between stages": "models/base/model.safetensors",
    "a Fisher": ".stages/fisher-amazon.json",
    "training the target": ".stages/train-target.json",
    "a merge": ".stages/merge-fisher.json",
    "an evaluation": ".stages/evaluate-target.json",
}


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT], ids=["kill", "int"])
@pytest.mark.parametrize("path", INTERRUPTIONS.values(), ids=INTERRUPTIONS)
def test_interrupted_run_goes_on_and_ends_with_the_same_bytes(
    long, tmp_path, number, path
):
    out = tmp_path / "out"
    command = [executable(), "run", long / "experiment.yaml", out]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    wait_for(process, out / path)
    process.send_signal(number)
    stderr = process.communicate()[1]
    if number == signal.SIGINT:
        assert process.returncode == 1
        assert "interrupted" in stderr.splitlines()[-1]
    done = run("run", long / "experiment.yaml", out)
    assert weights(out) == weights(long / "out")
    assert not stages(done.stderr)["done"] & stages(stderr)["done"]
    assert not list(out.rglob("*.partial"))


@pytest.fixture(scope="module")
def long(tmp_path_factory):
    """Like `finished`, with a base that trains long enough for checkpoints."""
    folder = tmp_path_factory.mktemp("long")
    path = tiny_experiment.make(folder)
    replace("movie, epochs: 3", "movie, epochs: 10, batch_size: 2")(folder)
    run("run", path, folder / "out")
    return folder


@pytest.mark.slow
def test_one_run_at_a_time(copy):
    with open(copy / "out" / ".stages" / "lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = run("run", copy / "experiment.yaml", copy / "out", check=False)
    assert done.returncode == 1
    assert "another run" in done.stderr


@pytest.mark.slow
def test_folder_of_something_else_is_left_alone(finished, tmp_path):
    (tmp_path / "models" / "base").mkdir(parents=True)
    done = run("run", finished / "experiment.yaml", tmp_path, check=False)
    assert done.returncode == 2
    assert "not an experiment's directory" in done.stderr
    assert os.listdir(tmp_path) == ["models"]


@pytest.mark.slow
def test_json_is_the_results_file(finished):
    out = finished / "out"
    done = run("run", finished / "experiment.yaml", out, "--json", "--quiet")
    assert done.stdout == (out / "results.json").read_text()
    assert done.stderr == ""


@pytest.mark.slow
def test_report_on_a_run(copy):
    done = run("report", copy / "out")
    path = copy / "out" / "report.html"
    assert done.stdout == f"{path}\n"
    text = path.read_text()
    assert all(f">{name}</th>" in text for name in [*TRAINED, *MERGES])
