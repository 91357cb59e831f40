"""`merganser posterior` and `merganser eval --samples` against merganser.Posterior."""

import json

import pytest
import torch
from command import run
from merganser import Posterior
from safetensors.torch import load_file
from training_inputs import MODELS, make_data, move
from transformers import AutoModelForSequenceClassification, AutoTokenizer

LENGTH = ("--max-length", 24)


@pytest.fixture(scope="module", params=MODELS)
def folder(request, tmp_path_factory):
    """A model and base, data, and the Fisher of each."""
    folder = tmp_path_factory.mktemp("posterior")
    data = make_data(folder / "data.jsonl", 12, seed=3)
    for name in ("model", "base"):
        with torch.random.fork_rng():
            torch.manual_seed(len(name))
            MODELS[request.param](folder / name)
        run(
            *("fisher", "--model", folder / name, "--data", data, "-q"),
            *("--limit", 5, "--out", folder / f"{name}.safetensors", *LENGTH),
        )
    return folder


def evaluate(folder, *options, check=True):
    return run(
        *("eval", "--model", folder / "model", "--data", folder / "data.jsonl"),
        *(*options, *LENGTH, "--json", "-q"),
        check=check,
    )


@pytest.mark.slow
@pytest.mark.parametrize("with_base", [False, True], ids=["alone", "with base"])
def test_is_the_average_of_python(folder, with_base):
    fisher = folder / "model.safetensors"
    base = [folder / "base.safetensors"] if with_base else []
    options = ["--fisher", fisher, "--delta", 20]
    options += [x for b in base for x in ("--base-fisher", b)]
    found = json.loads(evaluate(folder, *options, "--samples", 3, "--seed", 5).stdout)

    posterior = Posterior.laplace(folder / "model", fisher, *base, delta=20)
    examples = [json.loads(line) for line in open(folder / "data.jsonl")]
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    texts = [e["text"] for e in examples]
    cut = {"truncation": True, "max_length": 24}
    batch = dict(tokenizer(texts, padding=True, return_tensors="pt", **cut))
    model = AutoModelForSequenceClassification.from_pretrained(folder / "model")
    p = posterior.predict(model, [batch], samples=3, seed=5, loss="classification")
    labels = torch.tensor([e["label"] for e in examples])
    loss = -p[torch.arange(len(labels)), labels].log().mean()
    assert found[0]["loss"] == pytest.approx(loss.item(), abs=1e-5)
    assert found[0]["accuracy"] == (p.argmax(1) == labels).double().mean().item()

    other = json.loads(evaluate(folder, *options, "--samples", 3, "--seed", 6).stdout)
    assert abs(other[0]["loss"] - loss.item()) > 1e-3


@pytest.mark.slow
def test_a_saved_posterior(folder, tmp_path):
    """Its precision has that of the prior: adding one again is refused."""
    fisher = folder / "model.safetensors"
    Posterior.laplace(folder / "model", fisher, delta=20).save(tmp_path / "p")
    saved = tmp_path / "p" / "posterior.safetensors"
    expected = evaluate(folder, "--fisher", fisher, "--delta", 20, "--samples", 3)
    found = evaluate(folder, "--fisher", saved, "--samples", 3)
    loss = json.loads(expected.stdout)[0]["loss"]
    assert json.loads(found.stdout)[0]["loss"] == pytest.approx(loss, abs=1e-6)
    for prior in (("--delta", 1), ("--base-fisher", folder / "base.safetensors")):
        done = evaluate(folder, "--fisher", saved, "--samples", 3, *prior, check=False)
        assert done.returncode == 2
        assert "leave out the base's Fisher and delta" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes, message",
    [
        ({"--fisher": None}, "expected --samples and --fisher together, got one"),
        ({"--samples": None, "--delta": None}, "expected --samples and --fisher"),
        ({"--samples": None, "--fisher": None}, "--delta requires --samples"),
        (
            {"--samples": None, "--fisher": None, "--delta": None, "--seed": 1},
            "--seed requires --samples",
        ),
        ({"--samples": 0}, "expected a whole number from 1"),
        ({"--delta": -1}, "delta must be finite and non-negative, got -1"),
        ({"--delta": 0}, "parameters have precision 0; expected --delta above 0"),
        ({"--linearized-at": "base"}, "mutually exclusive"),
        ({"--fisher": "base.safetensors"}, "belongs to a different model"),
    ],
)
def test_refuses(folder, changes, message):
    options = {"--samples": 2, "--fisher": "model.safetensors", "--delta": 20} | changes
    given = []
    for name, value in options.items():
        if value is not None:
            given += [name, folder / value if isinstance(value, str) else value]
    done = evaluate(folder, *given, check=False)
    assert done.returncode == 2
    assert message in done.stderr


def multiply(folder, out, *more, check=True, **changes):
    options = {
        "base": folder / "base",
        "base-fisher": folder / "base.safetensors",
        "expert": folder / "model",
        "fisher": folder / "model.safetensors",
        "delta": 20,
    } | changes
    given = [word for name, x in options.items() for word in (f"--{name}", x)]
    return run("posterior", *given, "--out", out, "--json", *more, check=check)


@pytest.mark.slow
def test_the_product_is_that_of_python(folder, tmp_path):
    """Of two experts: the second one is the base, at another weight."""
    more = ("--expert", folder / "base", "--fisher", folder / "base.safetensors")
    weights = ("--weight", 0.7, "--weight", 0.2)
    shown = json.loads(multiply(folder, tmp_path / "out", *more, *weights).stdout)
    prior = Posterior.laplace(folder / "base", folder / "base.safetensors")
    posteriors = [
        Posterior.laplace(
            folder / name, folder / f"{name}.safetensors", folder / "base.safetensors"
        )
        for name in ("model", "base")
    ]
    expected = Posterior.product(posteriors, prior, [0.7, 0.2]).with_prior(20)
    found = Posterior.load(tmp_path / "out")
    for a, b in ((found.mean, expected.mean), (found.precision, expected.precision)):
        assert a.keys() == b.keys()
        for name, x in a.items():
            torch.testing.assert_close(x, b[name], rtol=1e-6, atol=1e-7)
    assert shown["parameters"] == sum(x.numel() for x in found.precision.values())
    assert shown["zero_precision"] == 0 and shown["weights"] == [0.7, 0.2]
    # A model directory.
    AutoModelForSequenceClassification.from_pretrained(tmp_path / "out")
    AutoTokenizer.from_pretrained(tmp_path / "out")


@pytest.mark.slow
def test_its_mean_is_gradient_matching(folder, tmp_path):
    """Of two experts, whose Fishers determine it."""
    other, fisher = tmp_path / "other", tmp_path / "other.safetensors"
    move(folder / "model", other, 0.2, 4)
    data = ("--data", folder / "data.jsonl", "--limit", 5, "-q", *LENGTH)
    run("fisher", "--model", other, *data, "--out", fisher)
    more = ("--expert", other, "--fisher", fisher)
    multiply(folder, tmp_path / "out", "-q", *more)
    (tmp_path / "recipe.yaml").write_text(
        f"""
merge_method: gradient_matching
base_model: {folder}/base
base_fisher: {folder}/base.safetensors
parameters: {{delta: 0}}
models:
  - {{model: {folder}/model, fisher: {folder}/model.safetensors}}
  - {{model: {other}, fisher: {fisher}}}
"""
    )
    run("merge", tmp_path / "recipe.yaml", tmp_path / "merged", "-q")
    found, merged = (
        load_file(tmp_path / name / "model.safetensors") for name in ("out", "merged")
    )
    for name, x in merged.items():
        torch.testing.assert_close(found[name], x, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes, more, message",
    [
        ({"fisher": "base.safetensors"}, (), "belongs to a different model"),
        ({"delta": -1}, (), "delta must be finite and non-negative"),
        ({}, ("--weight", 1, "--weight", 2), "expected --weight once, or once per"),
        ({}, ("--expert", "base"), "expected --fisher once per expert, got 1 for 2"),
        ({}, ("--weight", -1), "weight"),
    ],
)
def test_a_product_that_is_refused(folder, tmp_path, changes, more, message):
    paths = {"fisher", "expert"}
    changes = {k: folder / x if k in paths else x for k, x in changes.items()}
    more = [folder / x if x == "base" else x for x in more]
    done = multiply(folder, tmp_path / "out", *more, check=False, **changes)
    assert done.returncode == 2 and message in done.stderr
    assert done.stderr.count("\n") == 1 and not list(tmp_path.iterdir())
