"""merganser refine: the three solvers, targets, resuming and bad inputs."""

import json
import math
import os
import shutil
import signal
import subprocess
import time

import command
import merganser
import pytest
import safetensors.torch
import tensor_files
import torch
import training_inputs
from bad_merges import gradients_overflow, other_shapes
from transformers import AutoModelForSequenceClassification, AutoTokenizer

SOLVERS = ["adamw", "newton", "subspace"]
TASKS = {"one": 40, "two": 30}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A base, two experts trained from it, a merge that overshoots, data and Fishers.

    The merge adds each task vector three times: every solver has a clear step to take,
    with labels and with the experts' predictions.
    """
    folder = tmp_path_factory.mktemp("refine")
    training_inputs.make_bert(folder / "base")
    for seed, (name, count) in enumerate(TASKS.items()):
        data = training_inputs.make_data(folder / f"{name}.jsonl", count, seed)
        command.run(
            *("train", "--model", folder / "base", "--train", data, "-q"),
            *("--out", folder / name, "--max-length", "24", "--lr", "0.003"),
        )
    for name in [*TASKS, "base"]:
        command.run(
            *("fisher", "--model", folder / name, "--data", folder / "one.jsonl"),
            *("--out", folder / f"{name}.safetensors", "--max-length", "24", "-q"),
        )
    shutil.copytree(folder / "base", folder / "merged")
    files = [folder / name / "model.safetensors" for name in TASKS]
    one, two = (safetensors.torch.load_file(file) for file in files)
    file = folder / "merged" / "model.safetensors"
    base = safetensors.torch.load_file(file)
    merged = {name: 3 * (one[name] + two[name]) - 5 * base[name] for name in base}
    safetensors.torch.save_file(merged, file, {"format": "pt"})
    return folder


def arguments(folder, out, *more):
    yield from ("refine", "--base", folder / "base", "--max-length", "24", "-q")
    yield from ("--base-fisher", folder / "base.safetensors")
    yield from ("--model", folder / "merged", "--out", out)
    for name in TASKS:
        yield from ("--expert", folder / name, "--data", folder / f"{name}.jsonl")
    yield from more


def refine(folder, out, *more):
    done = command.run(*arguments(folder, out, "--json", *more))
    return json.loads(done.stdout)


def weights(path):
    return (path / "model.safetensors").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("targets", ["labels", "predictions"])
@pytest.mark.parametrize("solver", SOLVERS)
def test_lowers_the_objective(folder, tmp_path, solver, targets):
    out = tmp_path / "out"
    options = ("--solver", solver, "--targets", targets)
    if solver == "adamw":
        options += ("--lr", "0.001")
    report = refine(folder, out, *options)
    assert json.loads((out / "refine.json").read_text()) == report
    steps = report["steps"]
    assert steps[-1]["objective"] < steps[0]["objective"]
    (kept,) = (s for s in steps if s["step"] == report["kept_step"])
    assert kept["held_out"] == min(step["held_out"] for step in steps)
    assert report["solver"] == solver
    assert report["targets"] == targets
    used = [task["num_examples_used"] for task in report["tasks"]]
    assert used == list(TASKS.values())
    assert report["tasks"][0]["num_examples_held_out"] == 8
    model = AutoModelForSequenceClassification.from_pretrained(out)
    assert all(p.isfinite().all() for p in model.parameters())
    assert not list(tmp_path.glob("*.partial"))


REPEATS = 10


def repeated(folder, copy):
    """A copy of the files with one example per task, repeated: every draw of held-out
    examples is the same. Returns the batches of the tasks."""
    shutil.copytree(folder, copy)
    tokenizer = AutoTokenizer.from_pretrained(folder / "base")
    data = []
    for name in TASKS:
        line = (copy / f"{name}.jsonl").read_text().splitlines()[0]
        (copy / f"{name}.jsonl").write_text((line + "\n") * REPEATS)
        example = json.loads(line)
        inputs = tokenizer([example["text"]] * REPEATS, return_tensors="pt")
        labels = torch.tensor([example["label"]] * REPEATS)
        data.append([{**inputs, "labels": labels}])
    return data


@pytest.mark.slow
@pytest.mark.parametrize("refresh", [False, True])
def test_a_step_of_newton_is_that_of_its_definition(folder, tmp_path, refresh):
    """The last step is -g / (H + damping) in float64, with H of files or of the exact
    Fishers where the step begins."""
    copy = tmp_path / "copy"
    data = repeated(folder, copy)
    steps, alphas = (2 if refresh else 1), dict(zip(TASKS, (2, 0.5), strict=True))
    options = ["--solver", "newton", *(["--refresh"] if refresh else [])]
    for name, alpha in alphas.items():
        options += ["--weight", str(alpha)]
        if not refresh:
            fisher = copy / f"{name}.safetensors"  # of REPEATS examples, as the data
            command.run(
                *("fisher", "--model", copy / name, "--data", copy / f"{name}.jsonl"),
                *("--out", fisher, "--max-length", "24", "-q"),
            )
            options += ["--fisher", fisher]
    if refresh:
        refine(copy, tmp_path / "first", *options, "--steps", "1")
    start = tmp_path / "first" if refresh else copy / "merged"
    out = tmp_path / "out"
    report = refine(copy, out, *options, "--steps", str(steps))
    assert report["kept_step"] == steps
    load = AutoModelForSequenceClassification.from_pretrained
    model = load(start).double().eval()
    parameters = dict(model.named_parameters())
    theta0 = load(copy / "base").double().state_dict()
    h0 = merganser.FisherResult.load(copy / "base.safetensors").H
    gradient = {n: h0[n] * (p.detach() - theta0[n]) for n, p in parameters.items()}
    curvature = {n: h.double() for n, h in h0.items()}
    for (name, alpha), (batch,) in zip(alphas.items(), data, strict=True):
        inputs = {key: x[:1] for key, x in batch.items()}
        labels = inputs.pop("labels")
        scores = model(**inputs).logits.log_softmax(-1)[0]
        rows = [
            torch.autograd.grad(score, parameters.values(), retain_graph=True)
            for score in scores
        ]
        for i, n in enumerate(parameters):
            gradient[n] = gradient[n] - alpha * REPEATS * rows[labels[0]][i]
            if refresh:
                squares = zip(scores.detach().exp(), rows, strict=True)
                fisher = sum(p * row[i].square() for p, row in squares)
                curvature[n] += alpha * REPEATS * fisher
        if not refresh:
            file = merganser.FisherResult.load(copy / f"{name}.safetensors")
            for n, h in file.H.items():
                curvature[n] += alpha * h.double()
    damping = report["steps"][-1]["setting"]
    before, after = load(start).state_dict(), load(out).state_dict()
    for n, g in gradient.items():
        expected = -g / (curvature[n] + damping)
        step = (after[n] - before[n]).double()
        error = (step - expected).norm()
        assert error <= 1e-3 * expected.norm() + 1e-6 * before[n].norm()


@pytest.mark.slow
def test_steps_of_adamw_are_those_of_torch(folder, tmp_path):
    """On gradients of the mean objective in float64, clipped to norm 1."""
    copy = tmp_path / "copy"
    data = repeated(folder, copy)
    out = tmp_path / "out"
    alphas = dict(zip(TASKS, (2, 0.5), strict=True))
    weights = [word for alpha in alphas.values() for word in ("--weight", str(alpha))]
    options = ("--solver", "adamw", "--lr", "0.01", "--steps", "3", *weights)
    assert refine(copy, out, *options)["kept_step"] == 3
    load = AutoModelForSequenceClassification.from_pretrained
    model = load(folder / "merged").double().eval()
    theta0 = load(copy / "base").double().state_dict()
    h0 = merganser.FisherResult.load(copy / "base.safetensors").H
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0)
    for _ in range(3):
        objective = sum(
            0.5 * (h0[n] * (p - theta0[n]).square()).sum()
            for n, p in model.named_parameters()
        )
        for alpha, (batch,) in zip(alphas.values(), data, strict=True):
            objective = objective + alpha * REPEATS * model(**batch).loss
        optimizer.zero_grad()
        (objective / (REPEATS * sum(alphas.values()))).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    start, found = load(folder / "merged").state_dict(), load(out).state_dict()
    for n, p in model.named_parameters():
        if n.endswith("key.bias"):
            continue  # no gradient but rounding, which Adam normalizes
        step = p.detach() - start[n]
        error = (found[n] - start[n] - step).norm()
        assert error <= 1e-3 * step.norm() + 1e-6 * start[n].norm(), n


@pytest.mark.slow
def test_a_step_of_subspace_is_that_of_python(folder, tmp_path):
    copy = tmp_path / "copy"
    data = repeated(folder, copy)
    out = tmp_path / "out"
    report = refine(copy, out, "--solver", "subspace", "--steps", "1")
    load = AutoModelForSequenceClassification.from_pretrained
    found = merganser.refine(
        *(load(folder / "merged"), load(folder / "base")),
        *([load(folder / name) for name in TASKS], data),
        base_fisher=folder / "base.safetensors",
        steps=1,
    )
    assert report["kept_step"] == found.report["kept_step"] == 1
    for mine, other in zip(report["steps"], found.report["steps"], strict=True):
        for key in ("objective", "held_out", "held_out_loss"):
            # The executable divides by the number of examples.
            assert 20 * mine[key] == pytest.approx(other[key], rel=1e-5)
    start = load(folder / "merged").state_dict()
    for name, x in load(out).state_dict().items():
        step = found.state_dict[name] - start[name]
        assert (x - found.state_dict[name]).norm() <= 1e-5 * start[name].norm()
        assert (x - start[name] - step).norm() <= 1e-2 * step.norm() + 1e-7


@pytest.mark.slow
def test_predictions_need_no_labels(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    options = ("--targets", "predictions", "--steps", "2")
    with_labels = refine(copy, tmp_path / "out", *options)
    for name in TASKS:
        lines = (copy / f"{name}.jsonl").read_text().splitlines()
        texts = ({"text": json.loads(line)["text"]} for line in lines)
        unlabelled = "".join(json.dumps(text) + "\n" for text in texts)
        (copy / f"{name}.jsonl").write_text(unlabelled)
    without = refine(copy, tmp_path / "other", *options)
    assert without["steps"] == with_labels["steps"]
    assert weights(tmp_path / "other") == weights(tmp_path / "out")


@pytest.mark.slow
def test_a_step_that_explodes_is_not_kept(folder, tmp_path):
    options = ("--solver", "adamw", "--lr", "1e30", "--steps", "12")
    report = refine(folder, tmp_path / "out", *options)
    assert report["kept_step"] == 0
    assert sum(step["rejected"] for step in report["steps"]) > 0
    assert sum(step["not_finite"] for step in report["steps"]) > 0
    mine = safetensors.torch.load_file(tmp_path / "out" / "model.safetensors")
    start = safetensors.torch.load_file(folder / "merged" / "model.safetensors")
    assert all(torch.equal(mine[name], start[name]) for name in start)


@pytest.mark.slow
def test_interrupted_and_resumed(folder, tmp_path):
    options = ("--solver", "adamw", "--steps", "600", "--lr", "0.0001")
    whole = refine(folder, tmp_path / "whole", *options)
    out = tmp_path / "out"
    command_line = [command.executable(), *map(str, arguments(folder, out, *options))]
    process = subprocess.Popen(command_line, stderr=subprocess.PIPE, text=True)
    state = tmp_path / "out.partial" / "state.safetensors"
    while not state.exists() and process.poll() is None:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 1, stderr
    assert "interrupted; " in stderr and "rerun with --resume" in stderr
    assert "no incomplete output" not in stderr
    interrupted = json.loads((out / "refine.json").read_text())
    assert not interrupted["completed"]
    assert interrupted["steps"] == whole["steps"][: len(interrupted["steps"])]
    resumed = refine(folder, out, *options, "--resume")
    assert resumed["completed"]
    assert resumed["steps"] == whole["steps"]
    assert weights(out) == weights(tmp_path / "whole")


@pytest.mark.slow
def test_says_why_it_stopped(folder, tmp_path):
    """With the base as expert no task vector is left to move along."""
    copy = shutil.copytree(folder, tmp_path / "copy")
    for name in TASKS:
        shutil.copytree(copy / "base", copy / name, dirs_exist_ok=True)
    report = refine(copy, tmp_path / "out")
    assert report["stopped"] == "no step lowers the objective"
    assert report["kept_step"] == 0
    text = [x for x in arguments(copy, tmp_path / "other") if x != "-q"]
    stdout = command.run(*text).stdout
    assert "stopped: no step lowers the objective" in stdout


@pytest.fixture
def copy(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "copy")


def unlabelled(folder):
    (folder / "one.jsonl").write_text('{"text": "w1"}\n' * 9)


def few_examples(folder):
    training_inputs.make_data(folder / "two.jsonl", 3, seed=1)


def other_weights(folder):
    shutil.copytree(folder / "one", folder / "base", dirs_exist_ok=True)


def overflow(folder):
    file = folder / "merged" / "model.safetensors"
    tensor_files.change(file, "classifier.bias", lambda b: b * math.inf)


def negative_fisher(folder):
    tensor_files.change(folder / "base.safetensors", "classifier.bias", lambda f: f - 1)


BAD = {
    negative_fisher: "the Fisher of classifier.bias must be finite and not negative",
    unlabelled: 'the key "label" is missing',
    few_examples: "expected at least 3 examples to train on",
    other_weights: "belongs to a different model than",
    other_shapes: "intermediate.dense.weight has shape",
    overflow: "has values that are not finite",
    gradients_overflow: "the objective or its gradient is not finite",
}


@pytest.mark.slow
@pytest.mark.parametrize("solver", SOLVERS)
def test_fishers_of_other_weights(folder, tmp_path, solver):
    fishers = [folder / f"{name}.safetensors" for name in TASKS]
    swapped = [x for file in reversed(fishers) for x in ("--fisher", file)]
    options = ("--solver", solver, *swapped)
    done = command.run(*arguments(folder, tmp_path / "out", *options), check=False)
    assert done.returncode == 2, done.stderr
    assert "two.safetensors: the Fisher belongs to a different model" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_weights_beyond_float32(folder, tmp_path):
    """No step of Newton's method, or one sentence."""
    newton = ("--solver", "newton", "--steps", "1", "--weight")
    options = tuple(
        x for name in TASKS for x in ("--fisher", folder / f"{name}.safetensors")
    )
    done = command.run(
        *arguments(folder, tmp_path / "out", *options, *newton, "1e37"), check=False
    )
    assert done.returncode in (0, 2), done.stderr
    assert "cannot be converted" not in done.stderr
    assert not list(tmp_path.glob("*.partial"))
    done = command.run(
        *arguments(folder, tmp_path / "more", *options, *newton, "1e38"), check=False
    )
    assert done.returncode == 2
    assert "or the weights of 8e+39 examples in total, are beyond" in done.stderr
    assert not list(tmp_path.glob("more*"))


@pytest.mark.slow
@pytest.mark.parametrize("spoil", BAD, ids=lambda spoil: spoil.__name__)
def test_bad_input(copy, tmp_path, spoil):
    spoil(copy)
    done = command.run(*arguments(copy, tmp_path / "out"), check=False)
    assert done.returncode == 2, done.stderr
    assert BAD[spoil] in done.stderr
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.glob("out*"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--solver", "sgd"], "unknown solver 'sgd'"),
        (["--targets", "logits"], "unknown targets 'logits'"),
        (["--held-out", "1"], "held-out must be between 0 and 1 (exclusive), got 1"),
        (["--solver", "adamw", "--lr", "0"], "lr must be a positive number"),
        (["--lr", "0.001"], "--lr applies to adamw, not to subspace"),
        (
            ["--solver", "newton", "--groups", "global"],
            "--groups applies to subspace, not to newton",
        ),
        (["--steps", "-1"], "steps must be between 1"),
        (["--steps", "0"], "steps must be between 1 and 1000000, got 0"),
        (["--refresh"], "refresh applies to newton, not to subspace"),
    ],
)
def test_bad_options(folder, tmp_path, more, message):
    done = command.run(*arguments(folder, tmp_path / "out", *more), check=False)
    assert done.returncode == 2
    assert message in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_an_existing_directory_is_kept(folder, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "note.txt").write_text("mine")
    done = command.run(*arguments(folder, tmp_path / "out"), check=False)
    assert done.returncode == 2
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["note.txt"]
