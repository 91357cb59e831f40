"""Fishers collected in training against float64 replays of the same run.

The float32 run differs from the float64 one by rounding, which Adam accumulates over
steps. 1e-3 of a tensor's norm is far above that, and far below the effect of a wrong
factor (B, the clip scale, an extra step).
"""

import json

import merganser
import pytest
import torch
from merganser import FisherResult
from safetensors.torch import load_file
from training_inputs import MODELS, make_bert, make_data, train, write
from training_replay import Replay

COURSES = {
    "whole-epochs": {"epochs": 3},
    "clipped": {"epochs": 2, "clip": 0.05},
    "accumulated": {"epochs": 2, "accumulate": 2},
    "less-than-an-epoch": {"epochs": 0.5},
    "part-of-an-epoch": {"epochs": 1.4},
}
COMMON = {"lr": 1e-3, "batch_size": 8}


def assert_close(fisher, expected):
    assert set(fisher) == set(expected)
    for name, values in expected.items():
        if name.endswith("key.bias"):
            # Zero in theory: only squared rounding errors remain.
            assert fisher[name].max() < 1e-9
            continue
        error = (fisher[name].double() - values).norm()
        assert error <= 1e-3 * values.norm(), name


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("course", COURSES)
def test_adam(model, course, tmp_path):
    """sum over steps of (B * mean gradient)^2, over the examples of those steps."""
    MODELS[model](tmp_path / "model")
    data = make_data(tmp_path / "train.jsonl", 45, seed=1)
    options = COMMON | COURSES[course]
    result, out = train(tmp_path, fisher="adam", seed=3, **options)

    replay = Replay(tmp_path / "model", data, seed=3, dtype=torch.float64, **options)
    sums, count = {}, 0

    def add(step, examples):
        nonlocal count
        if step >= replay.window:
            count += len(examples)
            for name, gradient in replay.gradients().items():
                square = (len(examples) * gradient) ** 2
                sums[name] = sums.get(name, 0) + square

    replay.run(after_backward=add)
    assert result["fisher"] == str(out / "fisher.safetensors")
    fisher = load_file(out / "fisher.safetensors")
    assert_close(fisher, {name: value / count for name, value in sums.items()})

    saved = FisherResult.load(out / "fisher.safetensors")
    assert saved.estimator == "adam"
    assert saved.labels == "data"
    assert saved.num_examples == 45
    assert saved.num_examples_used == count
    assert saved.base_model_hash == merganser._C.content_hash(out)


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("course", COURSES)
@pytest.mark.parametrize("estimator", ["online_mc", "online_mc_eval"])
def test_online_mc(estimator, model, course, tmp_path):
    """sum over every second step's batches of (sum of gradients at drawn labels)^2,
    over their examples, at the model before that step."""
    MODELS[model](tmp_path / "model")
    data = make_data(tmp_path / "train.jsonl", 45, seed=1)
    options = COMMON | COURSES[course]
    # Dropout would change the run and the replay, but not the estimate.
    _, out = train(tmp_path, fisher=estimator, fisher_interval=2, seed=3, **options)

    replay = Replay(tmp_path / "model", data, seed=3, dtype=torch.float64, **options)
    sums, count = {}, 0

    def draw(step, epoch, batches):
        nonlocal count
        if step < replay.window or (step - replay.window) % 2:
            return
        for batch in batches:
            replay.model.zero_grad()
            logits = replay.logits(batch)
            labels = torch.ops.merganser.sample_labels(
                logits.detach().softmax(1).float(), torch.tensor(batch), 3, epoch
            )
            torch.nn.functional.cross_entropy(
                logits, labels, reduction="sum"
            ).backward()
            count += len(batch)
            for name, gradient in replay.gradients().items():
                sums[name] = sums.get(name, 0) + gradient**2

    replay.run(before_step=draw)
    fisher = load_file(out / "fisher.safetensors")
    assert_close(fisher, {name: value / count for name, value in sums.items()})
    saved = FisherResult.load(out / "fisher.safetensors")
    assert saved.estimator == estimator
    assert saved.labels == "model"
    assert saved.num_examples_used == count < 45


def test_online_mc_eval_is_without_dropout(tmp_path):
    """With a learning rate of 0 the model is constant, and dropout must not matter:
    all are equal to online_mc without dropout."""
    make_bert(tmp_path / "model")
    make_data(tmp_path / "train.jsonl", 20, seed=1)
    fishers = []
    for fisher, p in (("online_mc", 0), ("online_mc_eval", 0), ("online_mc_eval", 0.5)):
        options = {"fisher": fisher, "dropout": p, "lr": 0.0, "batch_size": 8}
        _, out = train(tmp_path, out=f"{fisher}-{p}", **options)
        fishers.append(load_file(out / "fisher.safetensors"))
    for other in fishers[1:]:
        assert all(torch.equal(other[name], f) for name, f in fishers[0].items())


def count_passes(folder, out, **options):
    """Counts batches that go forward and backward through the embeddings."""
    with torch.profiler.profile() as profiler:
        train(folder, out=out, batch_size=4, fisher_interval=2, **options)
    counts = {event.key: event.count for event in profiler.key_averages()}
    tables = 3  # of words, positions and types
    return counts["aten::embedding"] / tables, counts["EmbeddingBackward0"] / tables


@pytest.mark.slow
@pytest.mark.parametrize("accumulate", [1, 2])
def test_passes_of_online_mc(accumulate, tmp_path):
    """On the step's own graph a sample is one more backward pass, in eval mode a
    forward and a backward pass: of every second step of 8 batches."""
    make_bert(tmp_path / "model")
    make_data(tmp_path / "train.jsonl", 32, seed=1)
    expected = {
        "none": (8, 8),
        "online_mc": (8, 12),
        "online_mc_eval": (12, 12),
    }
    for fisher, passes in expected.items():
        options = {"fisher": fisher, "dropout": 0.1, "accumulate": accumulate}
        assert count_passes(tmp_path, fisher, **options) == passes


def test_online_mc_leaves_the_training_unchanged(tmp_path):
    make_bert(tmp_path / "model")
    make_data(tmp_path / "train.jsonl", 45, seed=1)
    options = COMMON | {"dropout": 0.1, "accumulate": 2, "fisher_interval": 1}
    outs = [
        train(tmp_path, out=fisher, fisher=fisher, **options)[1]
        for fisher in ("none", "online_mc")
    ]
    a, b = (load_file(out / "model.safetensors") for out in outs)
    assert all(torch.equal(a[name], b[name]) for name in a)
    a, b = ((out / "metrics.jsonl").read_text() for out in outs)
    assert a == b


def make_proximal(folder, name="f0", num_examples=90):
    """A Fisher of the model, far larger than a real one, to have an effect."""
    if not (folder / "model").exists():
        make_bert(folder / "model")
    make_data(folder / "train.jsonl", 45, seed=1)
    shapes = load_file(folder / "model" / "model.safetensors")
    fisher = {name: torch.rand(t.shape) for name, t in shapes.items()}
    metadata = merganser._C.FisherMetadata(
        estimator="exact",
        num_examples=num_examples,
        num_examples_used=num_examples,
        samples=1,
        seed=0,
        labels="model",
        base_model_hash=merganser._C.content_hash(folder / "model"),
    )
    merganser._C.write_fisher(folder / f"{name}.safetensors", fisher, metadata)
    return fisher


def make_earlier(folder):
    """The Fisher of another model."""
    (folder / "model").rename(folder / "start")
    torch.manual_seed(1)
    f1 = make_proximal(folder, "f1", 30)
    (folder / "model").rename(folder / "earlier")
    (folder / "start").rename(folder / "model")
    return f1


@pytest.mark.slow
@pytest.mark.parametrize("case", ["one", "several", "accumulated", "bfloat16"])
def test_proximal_term(case, tmp_path):
    """Replays with weight * sum_s N_s F_s / N (theta - theta_0) in the gradient."""
    f0 = make_proximal(tmp_path)
    precision = {name: 0.7 * 90 / 45 * f.double() for name, f in f0.items()}
    files = tmp_path / "f0.safetensors"
    if case == "several":
        for name, f in make_earlier(tmp_path).items():
            precision[name] += 0.7 * 30 / 45 * f.double()
        files = [tmp_path / "f1.safetensors", files]
    options = COMMON | {"epochs": 3, "clip": 0.5}
    if case == "accumulated":
        options |= {"batch_size": 4, "accumulate": 2}
    half = case == "bfloat16"  # products in it
    rel, loss_error = (3e-2, 1e-2) if half else (1e-2, 1e-4)
    term = {"proximal": files, "proximal_weight": 0.7}
    dtype = {"dtype": "bfloat16"} if half else {}
    _, out = train(tmp_path, fisher="adam", **term, **dtype, **options)
    data = tmp_path / "train.jsonl"
    replay = Replay(tmp_path / "model", data, dtype=torch.float64, **options)
    start = {name: p.detach().clone() for name, p in replay.model.named_parameters()}
    penalties, sums, count = [], {}, 0

    def add(step, examples):
        nonlocal count
        penalty = 0.0
        for name, p in replay.model.named_parameters():
            if step >= replay.window:  # the Fisher excludes the proximal term
                square = (len(examples) * p.grad.double()) ** 2
                sums[name] = sums.get(name, 0) + square
            difference = p.detach() - start[name]
            p.grad += precision[name] * difference
            penalty += 0.5 * (precision[name] * difference**2).sum().item()
        count += len(examples) if step >= replay.window else 0
        penalties.append(penalty)

    expected = replay.run(after_backward=add)
    rows = [json.loads(line) for line in (out / "metrics.jsonl").open()]
    steps = [row for row in rows if "penalty" in row]
    assert len(steps) == len(expected)
    for step, reference, penalty in zip(steps, expected, penalties, strict=True):
        assert step["loss"] == pytest.approx(reference["loss"], abs=loss_error)
        assert step["penalty"] == pytest.approx(penalty, rel=rel, abs=1e-12)
        assert step["gradient_norm"] == pytest.approx(
            reference["gradient_norm"], rel=rel
        )
    assert penalties[-1] > 1e-3
    fisher = load_file(out / "fisher.safetensors")
    for name, values in sums.items():
        if not name.endswith("key.bias"):
            error = (fisher[name].double() - values / count).norm()
            assert error <= (10 if half else 1) * 1e-2 * (values / count).norm(), name


def test_proximal_refuses_the_fisher_of_another_model(tmp_path):
    """Unless one belongs to the model that training starts from."""
    make_proximal(tmp_path)
    make_earlier(tmp_path)
    f0, f1 = (tmp_path / f"{name}.safetensors" for name in ("f0", "f1"))
    with pytest.raises(merganser.InputError, match="f1.safetensors.*another model"):
        train(tmp_path, proximal=f1)
    with pytest.raises(merganser.InputError, match="f1.safetensors is given twice"):
        train(tmp_path, proximal=[f1, f1])
    train(tmp_path, proximal=[f1, f0])


def test_proximal_refuses_a_fisher_of_other_shapes(tmp_path):
    make_proximal(tmp_path)
    fisher = make_proximal(tmp_path, "f1")
    fisher["classifier.bias"] = torch.ones(4)
    f0, f1 = (tmp_path / f"{name}.safetensors" for name in ("f0", "f1"))
    metadata = merganser._C.FisherMetadata(
        **{"estimator": "exact", "num_examples": 9, "num_examples_used": 9},
        **{"samples": 1, "seed": 0, "labels": "model", "base_model_hash": ""},
    )
    merganser._C.write_fisher(f1, fisher, metadata)
    message = "f1.safetensors: tensor classifier.bias must have the model's shape"
    for files in ([f0, f1], [f1, f0]):
        with pytest.raises(merganser.InputError, match=message):
            train(tmp_path, proximal=files)
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "out.partial").exists()


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory):
    """A model, texts with labels drawn from it, and its exact Fisher.

    For such labels the mean gradient is zero but for noise, so that without dropout
    both online estimators have the mean of the exact Fisher.
    """
    folder = tmp_path_factory.mktemp("calibrated")
    torch.manual_seed(1)  # how much dropout adds depends on the weights
    make_bert(folder / "model")
    data = make_data(folder / "train.jsonl", 1600, seed=1)
    replay = Replay(folder / "model", data)
    with torch.no_grad():
        p = replay.logits(range(len(replay.texts))).softmax(1)
    labels = torch.multinomial(p, 1, generator=torch.Generator().manual_seed(5))
    write(data, zip(replay.texts, labels.flatten().tolist(), strict=True))
    loaded = merganser._C.Dataset.load(
        data, folder / "model", max_length=24, num_labels=3
    )
    encoder = merganser._C.Encoder.load(folder / "model")
    exact = merganser._C.estimate_fisher(encoder, loaded, 0, estimator="exact")
    return folder, dict(exact.diagonal)


@pytest.mark.slow
@pytest.mark.parametrize(
    "estimator, dropout, low, high",
    [
        ("adam", 0.0, 0.9, 1.1),
        ("online_mc", 0.0, 0.9, 1.1),
        ("online_mc_eval", 0.0, 0.9, 1.1),
        ("adam", 0.1, 1.3, 1.8),
        ("online_mc", 0.1, 1.2, 1.6),
        ("online_mc_eval", 0.1, 0.9, 1.1),
    ],
)
def test_scale_against_exact(estimator, dropout, low, high, calibrated, tmp_path):
    """Ratio of the sums over all parameters, of a model that does not change.

    "adam" and "online_mc" square gradients of the network with dropout: they are
    larger, 1.57 and 1.37 times (1.1 to 1.8 and 1.0 to 1.7 on tiny BERTs,
    docs/benchmarks.md).
    """
    folder, exact = calibrated
    out = tmp_path / "out"
    options = {"dropout": dropout, "fisher": estimator, "fisher_interval": 1}
    train(folder, out=out, lr=0.0, batch_size=4, **options)
    fisher = load_file(out / "fisher.safetensors")
    ratio = sum(f.sum() for f in fisher.values()) / sum(f.sum() for f in exact.values())
    assert low < ratio < high
