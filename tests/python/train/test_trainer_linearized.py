"""Training of the first-order model against a float64 replay with torch.func."""

import copy
import json

import merganser
import pytest
import torch
from merganser import _C
from safetensors.torch import load_file
from torch.func import functional_call, jvp
from torch.nn.attention import SDPBackend, sdpa_kernel
from training_inputs import (
    MODELS,
    make_bert,
    make_data,
    read_metrics,
    sentences,
    train,
    write,
)
from training_replay import Replay

COURSES = {
    "decayed": {"epochs": 4, "weight_decay": 0.1},
    "clipped": {"epochs": 4, "clip": 0.1, "scheduler": "cosine"},
    "accumulated": {"epochs": 3.4, "accumulate": 2, "clip": 0.0},
}
COMMON = {"lr": 3e-3, "batch_size": 8}


class LinearReplay(Replay):
    """The replay's model holds theta; `origin` is the network at theta_0."""

    def __init__(self, *args, **options):
        super().__init__(*args, dtype=torch.float64, **options)
        self.origin = copy.deepcopy(self.model)

    def logits(self, examples):
        theta_0 = {n: p.detach() for n, p in self.origin.named_parameters()}
        tau = {n: p - theta_0[n] for n, p in self.model.named_parameters()}
        inputs = self.tokenizer(
            [self.texts[i] for i in examples],
            truncation=True,
            max_length=self.max_length,
            padding=True,
            return_tensors="pt",
        )

        def network(parameters):
            return functional_call(self.origin, parameters, (), dict(inputs)).logits

        with sdpa_kernel(SDPBackend.MATH):  # others have no forward derivative
            value, slope = jvp(network, (theta_0,), (tau,))
        return value + slope


def assert_same_course(steps, expected):
    assert len(steps) == len(expected)
    for step, reference in zip(steps, expected, strict=True):
        for name in ("epoch", "step", "examples"):
            assert step[name] == reference[name]
        assert step["loss"] == pytest.approx(reference["loss"], abs=1e-4, rel=0)
        assert step["gradient_norm"] == pytest.approx(
            reference["gradient_norm"], rel=1e-2
        )


def assert_has_displacement_of(replay, out):
    """The directory has theta, an ordinary model."""
    saved = load_file(out / "model.safetensors")
    theta_0 = dict(replay.origin.named_parameters())
    theta = dict(replay.model.named_parameters())
    assert set(saved) == set(theta)
    # No output depends on the biases of keys: Adam moves them along rounding errors.
    names = [name for name in theta if not name.endswith("key.bias")]
    ours, expected = (
        torch.cat([(t[name] - theta_0[name]).detach().flatten() for name in names])
        for t in (saved, theta)
    )
    assert (ours - expected).norm() < 1e-3 * expected.norm()


def assert_evaluated_as(replay, row):
    """The metrics of a file are those of a model's logits."""
    other = copy.copy(replay)
    examples = [json.loads(line) for line in open(row["file"])]
    other.texts = [e["text"] for e in examples]
    labels = torch.tensor([e["label"] for e in examples])
    logits = other.logits(range(len(labels))).detach()
    loss = torch.nn.functional.cross_entropy(logits, labels).item()
    assert row["loss"] == pytest.approx(loss, abs=1e-3)
    assert row["accuracy"] == (logits.argmax(1) == labels).double().mean().item()


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("course", COURSES)
def test_same_course_as_torch_func(model, course, tmp_path):
    MODELS[model](tmp_path / "model")
    data = make_data(tmp_path / "train.jsonl", 40, seed=1)
    dev = make_data(tmp_path / "dev.jsonl", 30, seed=2)
    options = COMMON | COURSES[course]
    # Dropout is off whatever config.json says.
    _, out = train(tmp_path, linearized=True, dropout=None, **options)
    replay = LinearReplay(tmp_path / "model", data, **options)
    steps, _ = read_metrics(out)
    assert_same_course(steps, replay.run())
    assert_has_displacement_of(replay, out)

    # Evaluated as the first-order model, which the ordinary network of theta is not.
    result, _ = train(tmp_path, out="evaluated", linearized=True, eval=dev, **options)
    last = result["epochs"][-1]
    assert last["linearized"]
    assert_evaluated_as(replay, last["eval"][0])
    ordinary = Replay(out, data)
    with pytest.raises(AssertionError):
        assert_evaluated_as(ordinary, last["eval"][0])


@pytest.mark.slow
def test_proximal_term(tmp_path):
    """A quadratic in tau: weight N_0 / N F_0 tau in the gradient."""
    make_bert(tmp_path / "model")
    data = make_data(tmp_path / "train.jsonl", 40, seed=1)
    shapes = load_file(tmp_path / "model" / "model.safetensors")
    fisher = {name: torch.rand(t.shape) for name, t in shapes.items()}
    metadata = _C.FisherMetadata(
        estimator="exact",
        num_examples=80,
        num_examples_used=80,
        samples=1,
        seed=0,
        labels="model",
        base_model_hash=_C.content_hash(tmp_path / "model"),
    )
    _C.write_fisher(tmp_path / "f0.safetensors", fisher, metadata)
    options = COMMON | {"epochs": 3}
    _, out = train(
        tmp_path,
        linearized=True,
        proximal=tmp_path / "f0.safetensors",
        proximal_weight=0.7,
        **options,
    )
    replay = LinearReplay(tmp_path / "model", data, **options)
    start = dict(replay.origin.named_parameters())
    penalties = []

    def add(step, examples):
        penalty = 0.0
        for name, p in replay.model.named_parameters():
            pull = 0.7 * 80 / 40 * fisher[name] * (p.detach() - start[name].detach())
            p.grad += pull
            penalty += 0.5 * (pull * (p.detach() - start[name].detach())).sum().item()
        penalties.append(penalty)

    expected = replay.run(after_backward=add)
    steps, _ = read_metrics(out)
    assert_same_course(steps, expected)
    for step, penalty in zip(steps, penalties, strict=True):
        assert step["penalty"] == pytest.approx(penalty, rel=1e-2, abs=1e-12)
    assert penalties[-1] > 1e-3


@pytest.mark.slow
def test_the_best_epoch_is_the_first_order_models(tmp_path):
    make_bert(tmp_path / "model")
    data = make_data(tmp_path / "train.jsonl", 40, seed=1)
    # Training makes inverted labels worse.
    wrong = write(
        tmp_path / "wrong.jsonl",
        ((text, (label + 1) % 3) for text, label in sentences(40, seed=1)),
    )
    options = COMMON | {"scheduler": "constant", "warmup": 0}
    evaluated = options | {"eval": wrong, "epochs": 4}
    result, out = train(tmp_path, linearized=True, **evaluated)
    means = [epoch["eval"][0]["accuracy"] for epoch in result["epochs"]]
    best = means.index(max(means)) + 1
    assert best == result["model_epoch"] < 4
    replay = LinearReplay(tmp_path / "model", data, epochs=best, **options)
    replay.run()
    assert_evaluated_as(replay, result["epochs"][best - 1]["eval"][0])
    assert_has_displacement_of(replay, out)


@pytest.mark.slow
def test_bfloat16_keeps_small_slopes(tmp_path):
    """Logits near theta_0 move by less than bfloat16 resolves, and the loss with
    them."""
    make_bert(tmp_path / "model")
    make_data(tmp_path / "train.jsonl", 8, seed=1)
    options = {
        "linearized": True,
        "epochs": 20,
        "batch_size": 8,
        "lr": 1e-6,
        "scheduler": "constant",
        "warmup": 0,
    }
    _, out = train(tmp_path, dtype="bfloat16", **options)
    narrow = [step["loss"] for step in read_metrics(out)[0]]
    _, out = train(tmp_path, out="wide", **options)
    wide = [step["loss"] for step in read_metrics(out)[0]]
    assert narrow == sorted(narrow, reverse=True)
    falls = (narrow[0] - narrow[-1]) / (wide[0] - wide[-1])
    assert falls == pytest.approx(1, abs=0.1)


def test_every_merge_takes_the_displacement(tmp_path):
    """theta_0 + sum of tau_t is an ordinary model for merganser and transformers."""
    make_bert(tmp_path / "model")
    outs = []
    for seed in (1, 2):
        data = make_data(tmp_path / f"train-{seed}.jsonl", 20, seed=seed)
        options = COMMON | {"train": data, "linearized": True}
        outs.append(train(tmp_path, out=f"expert-{seed}", **options)[1])
    start, *experts = (
        load_file(folder / "model.safetensors")
        for folder in (tmp_path / "model", *outs)
    )
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        json.dumps(  # which is YAML
            {
                "merge_method": "task_arithmetic",
                "base_model": str(tmp_path / "model"),
                "models": [
                    {"model": str(out), "parameters": {"weight": 1.0}} for out in outs
                ],
            }
        )
    )
    merganser.merge_recipe(recipe, tmp_path / "merged")
    merged = load_file(tmp_path / "merged" / "model.safetensors")
    for name, theta_0 in start.items():
        expected = theta_0 + sum(expert[name] - theta_0 for expert in experts)
        torch.testing.assert_close(merged[name], expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"dropout": 0.1}, "dropout must be 0, got 0.1"),
        ({"fisher": "adam"}, "collects no Fisher, got adam.*merganser fisher"),
        ({"fisher": "online_mc_eval"}, "collects no Fisher"),
    ],
)
def test_refused_options(options, message, tmp_path):
    make_bert(tmp_path / "model")
    make_data(tmp_path / "train.jsonl", 8, seed=1)
    with pytest.raises(merganser.InputError, match=message):
        train(tmp_path, linearized=True, **options)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("linearized", [True, False])
def test_no_resume_of_the_other_training(linearized, tmp_path):
    make_bert(tmp_path / "model")
    make_data(tmp_path / "train.jsonl", 16, seed=1)

    def stop(*call):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, progress=stop, linearized=linearized, batch_size=8)
    with pytest.raises(merganser.InputError, match="begun with linearized = "):
        train(tmp_path, linearized=not linearized, batch_size=8)
