"""`merganser eval --samples` against merganser.Posterior.predict."""

import json

import pytest
import torch
from command import run
from merganser import Posterior
from training_inputs import MODELS, make_data
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
