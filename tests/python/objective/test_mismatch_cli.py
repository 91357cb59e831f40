"""merganser mismatch: agreement with torch in float64, options and bad inputs."""

import json
import math
import shutil

import command
import pytest
import safetensors.torch
import tensor_files
import torch
import training_inputs
from bad_merges import gradients_overflow, other_shapes
from transformers import AutoTokenizer, BertForSequenceClassification

EXAMPLES = {"one": 20, "two": 14}
WEIGHTS = {"one": 1.0, "two": 0.5}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """base, experts, a merge and a target; data and Fishers of base and experts."""
    folder = tmp_path_factory.mktemp("mismatch")
    with torch.random.fork_rng():
        torch.manual_seed(11)
        training_inputs.make_bert(folder / "base")
        for name in ["one", "two", "merged", "target"]:
            perturb(folder / "base", folder / name)
    for seed, (name, count) in enumerate({**EXAMPLES, "base": 30}.items()):
        training_inputs.make_data(folder / f"{name}.jsonl", count, seed)
        command.run(
            *("fisher", "--model", folder / name, "--data", folder / f"{name}.jsonl"),
            *("--out", folder / f"{name}.safetensors", "--max-length", "24", "-q"),
        )
    return folder


@pytest.fixture
def copy(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "copy")


def perturb(source, target):
    shutil.copytree(source, target)
    file = target / "model.safetensors"
    tensors = safetensors.torch.load_file(file)
    moved = {n: x + 0.1 * x.std() * torch.randn_like(x) for n, x in tensors.items()}
    safetensors.torch.save_file(moved, file, {"format": "pt"})


def arguments(folder, fishers=True):
    yield from ("--base", folder / "base", "--max-length", "24")
    for name, weight in WEIGHTS.items():
        yield from ("--expert", folder / name, "--data", folder / f"{name}.jsonl")
        yield from ("--weight", weight)
        if fishers:
            yield from ("--fisher", folder / f"{name}.safetensors")
    if fishers:
        yield from ("--base-fisher", folder / "base.safetensors")


def mismatch(folder, *more, fishers=True):
    done = command.run("mismatch", *arguments(folder, fishers), "--json", "-q", *more)
    return json.loads(done.stdout)


class Definition:
    """The formulas in float64, with transformers."""

    def __init__(self, folder):
        self.folder = folder
        self.tokenizer = AutoTokenizer.from_pretrained(folder / "base")
        self.h0 = self.precision("base", 30)
        # Rounding errors, such as those of the key biases, count as zero.
        values = torch.cat([h.flatten() for h in self.h0.values()])
        for h in self.h0.values():
            h[h <= 1e-12 * values.mean()] = 0

    def precision(self, name, count):
        file = self.folder / f"{name}.safetensors"
        fisher = safetensors.torch.load_file(file)
        return {n: count * f.double() for n, f in fisher.items()}

    def parameters(self, name):
        model = BertForSequenceClassification.from_pretrained(self.folder / name)
        return {n: p.detach().double() for n, p in model.named_parameters()}

    def gradient(self, name, data):
        path = self.folder / name
        model = BertForSequenceClassification.from_pretrained(path).double().eval()
        total = 0.0
        for line in (self.folder / f"{data}.jsonl").read_text().splitlines():
            example = json.loads(line)
            inputs = self.tokenizer(example["text"], return_tensors="pt")
            log_p = torch.log_softmax(model(**inputs).logits[0], dim=0)
            total = total - log_p[example["label"]]
        total.backward()
        return {n: p.grad for n, p in model.named_parameters()}

    def mismatch(self, name, task):
        here, there = self.gradient(name, task), self.gradient(task, task)
        return {n: WEIGHTS[task] * (here[n] - there[n]) for n in here}

    def explained(self, name, task):
        here, there = self.parameters(name), self.parameters(task)
        h = self.precision(task, EXAMPLES[task])
        return {n: WEIGHTS[task] * h[n] * (here[n] - there[n]) for n in here}

    def norm(self, vector):
        return math.sqrt(sum(v.square().sum() for v in vector.values()))

    def inverse_norm(self, vector):
        total = 0
        for name, v in vector.items():
            used = self.h0[name] > 0
            total += (v[used].square() / self.h0[name][used]).sum()
        return math.sqrt(total)

    def check(self, row, m, explained):
        rest = {n: m[n] - explained[n] for n in m}
        for key, vector in (("mismatch", m), ("explained", explained), ("rest", rest)):
            norm, inverse = row[key]["norm"], row[key]["h0_inverse_norm"]
            assert norm == pytest.approx(self.norm(vector), rel=1e-4)
            assert inverse == pytest.approx(self.inverse_norm(vector), rel=1e-4)


def add(*vectors):
    return {n: sum(v[n] for v in vectors) for n in vectors[0]}


@pytest.mark.slow
def test_agrees_with_float64(folder):
    definition = Definition(folder)
    found = mismatch(folder, "--model", folder / "merged")
    (model,) = found["models"]
    assert model["model"] == str(folder / "merged")
    m = {task: definition.mismatch("merged", task) for task in WEIGHTS}
    e = {task: definition.explained("merged", task) for task in WEIGHTS}
    for task, row in zip(WEIGHTS, model["tasks"], strict=True):
        assert row["task"] == str(folder / task)
        definition.check(row, m[task], e[task])
    definition.check(model["total"], add(*m.values()), add(*e.values()))
    zeros = {n: int((h == 0).sum()) for n, h in definition.h0.items()}
    assert found["parameters_without_h0"] == sum(zeros.values())
    assert zeros["bert.encoder.layer.0.attention.self.key.bias"] > 0
    counts = [task["num_examples"] for task in found["tasks"]]
    assert counts == list(EXAMPLES.values())


@pytest.mark.slow
def test_the_fisher_says_how_many_examples_a_task_has(folder, copy):
    """N comes from the task's Fisher, if any, and scales the loss and the Fisher."""
    tensor_files.rewrite(copy / "one.safetensors", num_examples="40")
    rows, found = (mismatch(f, "--model", f / "merged") for f in (folder, copy))
    assert [task["num_examples"] for task in found["tasks"]] == [40, 14]
    before, after = (result["models"][0]["tasks"] for result in (rows, found))
    for part in ("mismatch", "explained", "rest"):
        for key, norm in before[0][part].items():
            assert after[0][part][key] == pytest.approx(2 * norm)
            assert after[1][part][key] == pytest.approx(before[1][part][key])


@pytest.mark.slow
def test_identity_of_the_target(folder):
    definition = Definition(folder)
    found = mismatch(folder, "--target", folder / "target")
    identity = found["models"][-1]["target_identity"]
    m = add(*(definition.mismatch("target", task) for task in WEIGHTS))
    base = definition.parameters("base")
    experts = {task: definition.parameters(task) for task in WEIGHTS}
    left, right = {}, {}
    for name, theta in definition.parameters("target").items():
        used = definition.h0[name] > 0
        steps = (WEIGHTS[t] * (experts[t][name] - base[name]) for t in WEIGHTS)
        left[name] = (theta - base[name] - sum(steps)) * used
        right[name] = torch.where(used, -m[name] / definition.h0[name], 0.0)
    difference = {n: left[n] - right[n] for n in left}
    product = sum((left[n] * right[n]).sum() for n in left)
    assert identity["left_norm"] == pytest.approx(definition.norm(left), rel=1e-4)
    assert identity["right_norm"] == pytest.approx(definition.norm(right), rel=1e-4)
    expected = definition.norm(difference)
    assert identity["difference_norm"] == pytest.approx(expected, rel=1e-4)
    cosine = product / definition.norm(left) / definition.norm(right)
    assert identity["cosine"] == pytest.approx(float(cosine), abs=1e-4)


@pytest.mark.slow
def test_any_batch_size_gives_the_same(folder):
    model = ("--model", folder / "merged")
    one, many = (
        mismatch(folder, *model, "--batch-size", size)["models"][0]["total"]
        for size in (1, 64)
    )
    for key in ("mismatch", "explained", "rest"):
        for norm in ("norm", "h0_inverse_norm"):
            assert many[key][norm] == pytest.approx(one[key][norm], rel=1e-5)


@pytest.mark.slow
def test_groups(folder):
    found = mismatch(folder, "--model", folder / "merged", "--groups", "block")
    total = found["models"][0]["total"]
    assert "bert.encoder.layer.1 mlp" in total["groups"]
    squares = sum(g["mismatch"]["norm"] ** 2 for g in total["groups"].values())
    assert math.sqrt(squares) == pytest.approx(total["mismatch"]["norm"])


@pytest.mark.slow
def test_without_fishers_only_the_mismatch(folder):
    found = mismatch(folder, "--model", folder / "merged", fishers=False)
    total = found["models"][0]["total"]
    assert total["mismatch"]["norm"] > 0
    assert total["mismatch"]["h0_inverse_norm"] is None
    assert total["explained"] is None
    assert total["rest"] is None
    assert found["base_fisher"] is None


@pytest.mark.slow
def test_table(folder):
    models = ("--model", folder / "merged", folder / "one")
    target = ("--target", folder / "target")
    text = command.run("mismatch", *arguments(folder), *models, *target).stdout
    assert text.startswith("model ")
    for name in ("merged", "one", "two", "target"):
        assert str(folder / name) in text
    assert "H0 = 0 for" in text
    assert "cosine" in text


def change(path, name, edit):
    tensor_files.change(path / "model.safetensors", name, edit)


def unlabelled(folder):
    (folder / "one.jsonl").write_text('{"text": "w1"}\n' * 5)


def other_weights(folder):
    shutil.copy(folder / "two.safetensors", folder / "one.safetensors")


def not_finite(folder):
    change(folder / "target", "classifier.bias", lambda b: b * math.nan)


def few_examples(folder):
    training_inputs.make_data(folder / "two.jsonl", 2, seed=1)


def overflow(folder):
    name = "bert.encoder.layer.1.output.dense.weight"
    change(folder / "merged", name, lambda w: torch.full_like(w, 3e38))


def zero_fisher(folder):
    tensor_files.rewrite(
        folder / "base.safetensors",
        lambda fisher: {name: 0 * f for name, f in fisher.items()},
    )


BAD = {
    zero_fisher: "the Fisher of the base is 0 everywhere",
    other_shapes: "intermediate.dense.weight has shape",
    unlabelled: 'the key "label" is missing',
    other_weights: "belongs to a different model than",
    not_finite: "classifier.bias has values that are not finite",
    few_examples: "expected at least 3 examples, one for each class, got 2",
    overflow: "is not finite",
    gradients_overflow: "the gradient of the loss on",
}


@pytest.mark.slow
@pytest.mark.parametrize("spoil", BAD, ids=lambda spoil: spoil.__name__)
def test_bad_input(copy, spoil):
    spoil(copy)
    models = ("--model", copy / "merged", "--target", copy / "target")
    done = command.run("mismatch", *arguments(copy), *models, "-q", check=False)
    assert done.returncode == 2, done.stderr
    assert BAD[spoil] in done.stderr
    assert done.stderr.count("\n") == 1
    assert not done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--fisher", "x"], "--fisher once per expert"),
        (["--data", "x"], "--data once per expert"),
        (["--weight", "1"], "--weight once, or once per expert"),
        (["--groups", "layer"], "unknown groups 'layer'"),
        (["--limit", "0"], "limit must be at least 1"),
    ],
)
def test_bad_options(folder, more, message):
    model = ("--model", folder / "merged")
    done = command.run("mismatch", *arguments(folder), *model, *more, check=False)
    assert done.returncode == 2
    assert message in done.stderr


@pytest.mark.slow
def test_a_target_needs_the_base_fisher(folder):
    target = ("--target", folder / "target")
    done = command.run("mismatch", *arguments(folder, False), *target, check=False)
    assert done.returncode == 2
    assert "--base-fisher" in done.stderr
