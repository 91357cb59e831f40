"""merganser search: trials against merges of files, resuming, and bad inputs."""

import json
import os
import shutil
import signal
import subprocess
import time

import command
import pytest
import torch
import training_inputs
import yaml

TASKS = {"one": 60, "two": 50}
METHODS = {
    "task_arithmetic": ({}, ["models.*.weight=0..2"]),
    "ties": ({}, ["weight=0.2..2:log", "density=0.3,0.6,1"]),
    "dare_linear": ({}, ["density=0.2..1", "seed=0..9"]),
    "linear": ({"out_dtype": "bfloat16"}, ["models.0.weight=0.1..10:log"]),
    "gradient_matching": ({"heads": "base"}, ["weight=0.1..5:log"]),
    "fisher": ({}, ["models.1.weight=0.1..5", "normalize_fishers=true,false"]),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A base, two experts trained from it, their Fishers, and validation data."""
    folder = tmp_path_factory.mktemp("search")
    torch.manual_seed(0)
    training_inputs.make_bert(folder / "base")
    for seed, (name, count) in enumerate(TASKS.items()):
        data = training_inputs.make_data(folder / f"{name}.jsonl", count, seed)
        training_inputs.make_data(folder / f"{name}-v.jsonl", 20, seed + 10)
        command.run(
            *("train", "--model", folder / "base", "--train", data, "-q"),
            *("--out", folder / name, "--max-length", "24", "--lr", "0.003"),
        )
    for name in [*TASKS, "base"]:
        command.run(
            *("fisher", "--model", folder / name, "--data", folder / "one.jsonl"),
            *("--out", folder / f"{name}.safetensors", "--max-length", "24", "-q"),
        )
    return folder


def recipe(folder, path, method="task_arithmetic", **changes):
    """With paths relative to its own directory."""
    to = os.path.relpath(folder, path.parent)
    given = {
        "merge_method": method,
        "base_model": f"{to}/base",
        "base_fisher": f"{to}/base.safetensors",
        "models": [
            {"model": f"{to}/{name}", "fisher": f"{to}/{name}.safetensors"}
            for name in TASKS
        ],
        **changes,
    }
    path.write_text(yaml.safe_dump(given))
    return path


def arguments(folder, path, out, *more):
    yield from ("search", path, "--out", out, "--max-length", "24", "-q")
    yield from ("--data", folder / "one-v.jsonl", folder / "two-v.jsonl")
    yield from more


def search(*given, over):
    options = [word for one in over for word in ("--over", one)]
    done = command.run(*arguments(*given), *options, "--json")
    return json.loads(done.stdout)


def losses(folder, model):
    done = command.run(
        *("eval", "--model", model, "--max-length", "24", "--json", "-q"),
        *("--data", folder / "one-v.jsonl", folder / "two-v.jsonl"),
    )
    return [row["loss"] for row in json.loads(done.stdout)]


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_trials_equal_merges_of_files(folder, tmp_path, method):
    """The best recipe's model has the loss of its trial, to the last bit: the
    parameters are the same."""
    changes, over = METHODS[method]
    path = recipe(folder, tmp_path / "r.yaml", method, **changes)
    report = search(folder, path, tmp_path / "out", "--trials", "5", over=over)
    assert len(report["trials"]) == 6
    best = min(report["trials"], key=lambda trial: trial["loss"])
    assert best == report["best"]
    for recipe_file, trial in [
        (path, report["trials"][0]),
        (tmp_path / "out" / "best.yaml", best),
    ]:
        model = tmp_path / f"model{trial['trial']}"
        shutil.rmtree(model, ignore_errors=True)
        command.run("merge", recipe_file, model, "-q")
        assert losses(folder, model) == [row["loss"] for row in trial["sets"]]
    assert len({json.dumps(t["values"]) for t in report["trials"]}) == 6


@pytest.mark.slow
def test_improves_on_the_recipe(folder, tmp_path):
    path = recipe(folder, tmp_path / "r.yaml", parameters={"weight": 3})
    done = command.run(
        *arguments(folder, path, tmp_path / "out", "--trials", "16"),
        *("--over", "models.*.weight=0..2", "--objective", "accuracy"),
    )
    lines = (tmp_path / "out" / "trials.jsonl").read_text().splitlines()
    trials = [json.loads(line) for line in lines[1:]]

    def score(trial):
        return trial["accuracy"], -trial["loss"]

    best = max(trials, key=score)
    assert score(best) > score(trials[0])
    header, first, *_, last = done.stdout.splitlines()
    assert header.split() == [
        *("trial", "models.0.weight", "models.1.weight", "loss", "accuracy")
    ]
    weights = [str(value) for value in best["values"].values()]
    assert first.split()[:3] == [str(best["trial"]), *weights]
    assert any(line.startswith("recipe ") for line in done.stdout.splitlines())
    assert last == f"Best recipe: {tmp_path / 'out' / 'best.yaml'}"
    found = yaml.safe_load((tmp_path / "out" / "best.yaml").read_text())
    assert [str(m["parameters"]["weight"]) for m in found["models"]] == weights


@pytest.mark.slow
def test_limits_the_examples(folder, tmp_path):
    path = recipe(folder, tmp_path / "r.yaml")
    more = ("--trials", "1", "--limit", "7")
    report = search(folder, path, tmp_path / "out", *more, over=["lambda=0.5,2"])
    assert [row["examples"] for row in report["best"]["sets"]] == [7, 7]
    assert report["tried"] == 2


@pytest.mark.slow
def test_lists_end_with_their_combinations(folder, tmp_path):
    path = recipe(folder, tmp_path / "r.yaml", "ties")
    over = ["lambda=0.5,1", "density=0.5,0.7"]
    report = search(folder, path, tmp_path / "out", over=over)
    assert len(report["trials"]) == 5
    assert len({json.dumps(t["values"]) for t in report["trials"]}) == 5


@pytest.mark.slow
def test_refused_trials_are_recorded(folder, tmp_path):
    """density - epsilon and density + epsilon must be probabilities."""
    path = recipe(folder, tmp_path / "r.yaml", "della", parameters={"density": 0.5})
    given = (folder, path, tmp_path / "out", "--trials", "2")
    report = search(*given, over=["density=0.1,0.6"])
    (refused,) = (trial for trial in report["trials"] if "refused" in trial)
    assert refused["values"] == {"density": 0.1}
    assert "must be between 0 and 1" in refused["refused"]
    done = command.run(*arguments(*given), "--over", "density=0.1,0.6")
    assert "1 of 3 trials were refused; the first: trial " in done.stdout


def journal(out):
    return (out / "trials.jsonl").read_bytes()


@pytest.mark.slow
def test_continues_exactly(folder, tmp_path):
    path = recipe(folder, tmp_path / "r.yaml")
    over = ["models.*.weight=0..2"]
    search(folder, path, tmp_path / "whole", "--trials", "8", over=over)
    whole = journal(tmp_path / "whole")
    out = tmp_path / "out"
    search(folder, path, out, "--trials", "3", over=over)
    assert whole.startswith(journal(out))
    with (out / "trials.jsonl").open("ab") as file:
        file.write(b'{"trial":4,"val')  # as a kill leaves it
    report = search(folder, path, out, "--trials", "8", over=over)
    assert report["tried"] == 5
    assert journal(out) == whole
    best = (out / "best.yaml").read_text()
    assert best == (tmp_path / "whole" / "best.yaml").read_text()
    report = search(folder, path, out, "--trials", "4", over=over)
    assert report["tried"] == 0
    assert len(report["trials"]) == 9


@pytest.mark.slow
def test_ctrl_c_keeps_the_trials(folder, tmp_path):
    path = recipe(folder, tmp_path / "r.yaml")
    out = tmp_path / "out"
    options = ("--trials", "100000", "--over", "weight=0..2")
    words = [command.executable(), *arguments(folder, path, out, *options)]
    process = subprocess.Popen(list(map(str, words)), stderr=subprocess.PIPE, text=True)
    while not (out / "best.yaml").exists() or journal(out).count(b"\n") < 4:
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate()
    assert process.returncode == 1
    assert stderr == "merganser: interrupted; rerun the command to continue\n"
    found = journal(out)
    trials = found.count(b"\n") - 1
    report = search(folder, path, out, "--trials", str(trials), over=["weight=0..2"])
    assert report["tried"] == 1  # the recipe's own values count in addition
    assert journal(out).startswith(found)
    command.run("merge", out / "best.yaml", tmp_path / "model", "-q")


def refuse(*words, message):
    done = command.run(*words, check=False)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
def test_bad_parameters(folder, tmp_path):
    path = recipe(folder, tmp_path / "r.yaml")
    for over, message in [
        ("delta=0..1", "method task_arithmetic has no parameter delta; available:"),
        ("weight=2..1", "expected a range from a lower to a higher value, got 2..1"),
        ("weight", "expected KEY=LOW..HIGH"),
        ("weight=[0.2,0.8]..2", "expected one value, got [0.2,0.8]"),
        ("weight={sweep: [0.5]}..2", "expected one value, got {sweep: [0.5]}"),
        ("models.5.weight=0..1", "expected a model from 0 to 1, or *, got '5'"),
    ]:
        words = arguments(folder, path, tmp_path / "out", "--over", over)
        refuse(*words, message=message)
    for more, message in [
        (("--trials", "0"), "expected at least one trial, got 0"),
        (("--limit", "0"), "limit must be at least 1, or -1 for all examples"),
        (("--objective", "f1"), "expected accuracy or loss, got 'f1'"),
    ]:
        words = arguments(folder, path, tmp_path / "out", "--over", "weight=0..1")
        refuse(*words, *more, message=message)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_bad_recipes(folder, tmp_path):
    slices = [
        {"sources": [{"model": str(folder / "one"), "layer_range": [0, 1]}]},
        {"sources": [{"model": str(folder / "two"), "layer_range": [1, 2]}]},
    ]
    for changes, message in [
        ({"models": None, "slices": slices}, "a search expects models, got slices"),
        (
            {"parameters": {"lambda": {"sweep": [0.5, 1]}}},
            "a search expects a recipe of one model, got a sweep of 2",
        ),
        ({"merge_method": "tis"}, "unknown merge method 'tis'"),
        ({"heads": "per_task"}, "a search evaluates one model, got heads: per_task"),
    ]:
        path = recipe(folder, tmp_path / "r.yaml", **changes)
        words = arguments(folder, path, tmp_path / "out", "--over", "weight=0..1")
        refuse(*words, message=message)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_bad_data(folder, tmp_path):
    path = recipe(folder, tmp_path / "r.yaml")
    for text, message in [
        ('{"text": "w1 fine"}\n', "label"),
        ('{"text": "w1 fine", "label": 3}\n', "label"),
        ('{"text": "w1 fine", "label": "good"}\n', "label"),
        ("", "no examples"),
    ]:
        data = tmp_path / "data.jsonl"
        data.write_text(text)
        words = ("search", path, "--out", tmp_path / "out", "--data", data)
        words += ("--max-length", "24")
        refuse(*words, "--over", "weight=0..1", message=message)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_trial_without_a_finite_loss_is_refused(folder, tmp_path):
    path = recipe(folder, tmp_path / "r.yaml")
    more = ("--trials", "3")
    report = search(
        folder, path, tmp_path / "out", *more, over=["weight=1e30..1e38:log"]
    )
    assert report["best"]["trial"] == 0
    refused = [trial["refused"] for trial in report["trials"][1:]]
    assert len(refused) == 3
    assert all("not finite" in reason for reason in refused)


@pytest.mark.slow
def test_a_missing_file_is_no_refused_trial(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    path = recipe(copy, tmp_path / "r.yaml", "fisher")
    out = tmp_path / "out"
    more = ("--trials", "1")
    search(copy, path, out, *more, over=["weight=0..1"])
    (copy / "one.safetensors").unlink()
    words = (*arguments(copy, path, out, "--trials", "3"), "--over", "weight=0..1")
    refuse(*words, message="one.safetensors")
    assert len((out / "trials.jsonl").read_text().splitlines()) == 3  # with a header


@pytest.mark.slow
def test_keeps_the_files_of_others(folder, tmp_path):
    path = recipe(folder, tmp_path / "r.yaml")
    out = tmp_path / "out"
    out.mkdir()
    for name in (".lock", "best.yaml", "notes"):
        (out / name).write_text("mine")
    words = (*arguments(folder, path, out), "--over", "weight=0..1")
    refuse(*words, message="not empty and not a search's directory")
    assert (out / "best.yaml").read_text() == "mine"


@pytest.mark.slow
def test_other_outputs(folder, tmp_path):
    path = recipe(folder, tmp_path / "r.yaml")
    out = tmp_path / "out"
    search(folder, path, out, "--trials", "1", over=["weight=0..1"])
    words = (*arguments(folder, path, out), "--over", "weight=0..2")
    refuse(*words, message=f"{out}: contains another search, with another over;")
    recipe(folder, path, parameters={"lambda": 0.5})
    words = (*arguments(folder, path, out), "--over", "weight=0..1", "--seed", "3")
    refuse(*words, message="contains another search, with another recipe, seed;")
    words = (*arguments(folder, path, folder / "one"), "--over", "weight=0..1")
    refuse(*words, message="not empty and not a search's directory")
    words = (*arguments(folder, path, path), "--over", "weight=0..1")
    refuse(*words, message="exists and is not a directory")
    (out / "trials.jsonl").write_text("{}\nx\n")
    words = (*arguments(folder, path, out), "--over", "weight=0..1")
    refuse(*words, message="trials.jsonl: damaged; delete it to start again")
