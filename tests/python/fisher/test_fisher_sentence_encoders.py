"""Fishers of losses of pairs, against a float64 loop over single pairs; and what
sentence-transformers' Trainer can give."""

import json
import shutil

import merganser
import pytest
import torch
from command import run
from datasets import Dataset
from document_examples import run_example
from fisher_oracle import assert_fishers_close
from merganser import InputError
from merganser._common.sentence import name_in_files
from merganser.hf import FisherCallback
from sentence_models import (
    PAIRS,
    Pairs,
    cosine_loss,
    gradients,
    pair_batch,
    sentence_encoder,
)
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.sentence_transformer.losses import (
    CosineSimilarityLoss,
    MultipleNegativesRankingLoss,
)
from torch import nn
from torch.nn import functional
from transformers import TrainerCallback

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return sentence_encoder(tmp_path_factory.mktemp("encoder") / "model", 0)


@pytest.fixture
def model(folder):
    return Pairs(str(folder), device="cpu")


def negatives_loss(embeddings, labels):
    """MultipleNegativesRankingLoss with the negatives of a pair: (B, 2 + K, D)."""
    anchor, candidates = embeddings[:, :1], embeddings[:, 1:]
    scores = 20 * functional.cosine_similarity(anchor, candidates, dim=2)
    return -scores.log_softmax(1)[:, 0]


def in_batch_loss(embeddings, labels):
    """MultipleNegativesRankingLoss: the other pairs' texts are the negatives."""
    anchors, positives = embeddings.unbind(1)
    scores = 20 * anchors @ positives.T
    return functional.cross_entropy(scores, torch.arange(len(scores)), reduction="none")


class WithNegatives(Pairs):
    """Embeds a pair and two negatives: (B, 4, D)."""

    def forward(self, first, second, third, fourth):
        pair, negatives = super().forward(first, second), super().forward(third, fourth)
        return torch.cat([pair, negatives], 1)


def negatives_batch(model, rows):
    """Pairs whose negatives are the second texts of the two that follow."""
    others = [
        (PAIRS[(PAIRS.index(row) + 1) % 5][1], PAIRS[(PAIRS.index(row) + 2) % 5][1], 0)
        for row in rows
    ]
    inputs, labels = pair_batch(model, rows)
    negatives, _ = pair_batch(model, others)
    third, fourth = negatives["first"], negatives["second"]
    return {**inputs, "third": third, "fourth": fourth}, labels


CASES = {
    "cosine": (Pairs, cosine_loss, pair_batch),
    "negatives": (WithNegatives, negatives_loss, negatives_batch),
}


def define_fisher(model, batches, loss):
    """Mean of the squared gradients of single examples."""
    found = list(gradients(model, batches, loss))
    return {name: sum(g[name] ** 2 for g in found) / len(found) for name in found[0]}


@pytest.mark.parametrize("name", CASES)
def test_loss_of_pairs(name, folder):
    kind, loss, batch = CASES[name]
    model = kind(str(folder), device="cpu")
    data = [batch(model, PAIRS[:3]), batch(model, PAIRS[3:])]
    result = merganser.fisher(model, data, "empirical", loss=loss, unsupported="error")
    expected = define_fisher(model, [batch(model, [pair]) for pair in PAIRS], loss)
    assert_fishers_close(result, expected)
    assert result["2.linear.weight"].any()
    assert result["0.model.encoder.layer.0.attention.self.value.weight"].any()


def test_documented_example(folder, tmp_path, monkeypatch):
    """The example of docs/python.md, as printed."""
    shutil.copytree(folder, tmp_path / "models/nyt")
    monkeypatch.chdir(tmp_path)
    model = Pairs(str(folder), device="cpu")
    names = {
        "merganser": merganser,
        "torch": torch,
        "batches": [pair_batch(model, PAIRS)],
        "__name__": "example",
    }
    run_example("Sentence encoders", names)
    found = merganser.FisherResult.load("nyt.fisher.safetensors")
    singles = [pair_batch(model, [pair]) for pair in PAIRS]
    expected = define_fisher(model, singles, cosine_loss)
    name = "2_Dense/linear.weight"
    torch.testing.assert_close(
        found[name].double(), expected["2.linear.weight"], rtol=1e-4, atol=1e-9
    )


def test_loss_is_that_of_sentence_transformers(model):
    inputs, labels = pair_batch(model, PAIRS)
    model.eval()
    with torch.no_grad():
        found = cosine_loss(model(**inputs), labels).mean()
        plain = SentenceTransformer(modules=list(model), device="cpu").eval()
        expected = CosineSimilarityLoss(plain)(list(inputs.values()), labels)
    torch.testing.assert_close(found, expected)


def test_in_batch_negatives_are_refused(model):
    data = [pair_batch(model, PAIRS)]
    with pytest.raises(InputError, match="example 0 is .* in its batch and .* alone"):
        merganser.fisher(model, data, "empirical", loss=in_batch_loss)


def test_losses_that_couple_examples_are_refused():
    """Also where the model's parameters have rules."""

    def centred(outputs, labels):
        return (outputs - outputs.mean(0)).square().sum(1)

    data = [(torch.randn(4, 3), torch.zeros(4))]
    with pytest.raises(InputError, match="a Fisher needs a loss of single examples"):
        merganser.fisher(nn.Linear(3, 2), data, "empirical", loss=centred)


def test_names_and_hash_of_the_files(model, folder, tmp_path):
    """A recipe finds the tensors and knows the weights."""
    data = [pair_batch(model, PAIRS)]
    options = {"loss": cosine_loss, "model_path": folder}
    found = merganser.fisher(model, data, "empirical", **options)
    assert "embeddings.word_embeddings.weight" in found
    assert "2_Dense/linear.weight" in found
    found.save(tmp_path / "f.safetensors")
    recipe = tmp_path / "r.yaml"
    models = [{"model": str(folder), "fisher": str(tmp_path / "f.safetensors")}]
    recipe.write_text(json.dumps({"merge_method": "fisher", "models": models}))
    assert "not checked" not in run("plan", recipe).stdout
    models[0]["model"] = str(sentence_encoder(tmp_path / "b", 1))
    recipe.write_text(json.dumps({"merge_method": "fisher", "models": models}))
    done = run("plan", recipe, check=False)
    assert done.returncode == 2
    assert "was estimated on other weights" in done.stderr


def test_model_path_with_another_dense(model, folder, tmp_path):
    shutil.copytree(folder, tmp_path / "a")
    other = sentence_encoder(tmp_path / "b", 1)
    name = "2_Dense/model.safetensors"
    shutil.copy(other / name, tmp_path / "a" / name)
    data = [pair_batch(model, PAIRS)]
    options = {"loss": cosine_loss, "model_path": tmp_path / "a"}
    with pytest.raises(InputError, match="'2_Dense/linear.weight' differs"):
        merganser.fisher(model, data, "empirical", **options)


def make_trainer(model, out, callbacks=(), loss=None, **settings):
    first, second, labels = zip(*PAIRS * 2, strict=True)
    return SentenceTransformerTrainer(
        model=model,
        args=SentenceTransformerTrainingArguments(
            output_dir=out,
            per_device_train_batch_size=2,
            save_steps=4,
            logging_steps=1,
            report_to=[],
            use_cpu=True,
            disable_tqdm=True,
            **{"max_steps": 4} | settings,
        ),
        train_dataset=Dataset.from_dict(
            {"first": first, "second": second, "label": labels}
        ),
        loss=CosineSimilarityLoss(model) if loss is None else loss,
        callbacks=list(callbacks),
    )


class Recorder(TrainerCallback):
    """Gradients before each step, in float64."""

    def __init__(self):
        self.steps = []

    def on_pre_optimizer_step(self, args, state, control, model, **_):
        self.steps.append(
            {
                name_in_files(model, n): (0 * p if p.grad is None else p.grad).double()
                for n, p in model.named_parameters()
            }
        )


@pytest.mark.parametrize("accumulate", [1, 2])
def test_callback_in_their_trainer(folder, tmp_path, accumulate):
    """sum over steps of (n * mean gradient)^2, over the examples of the steps."""
    model = SentenceTransformer(str(folder), device="cpu")
    loss, recorder = CosineSimilarityLoss(model), Recorder()
    callback = FisherCallback(loss=loss, window=3)
    settings = {
        "gradient_accumulation_steps": accumulate,
        "max_grad_norm": 0.0,
        "learning_rate": 1e-3,
    }
    trainer = make_trainer(model, tmp_path, [recorder, callback], loss, **settings)
    trainer.train()
    # Five batches an epoch: its last step has one.
    sizes = {1: [2, 2, 2], 2: [4, 2, 4]}[accumulate]
    found = callback.result
    assert found.num_examples_used == sum(sizes) and found.num_examples == 10
    for name, f in found.items():
        steps = zip(sizes, recorder.steps[-3:], strict=True)
        squares = sum((n * step[name]) ** 2 for n, step in steps)
        torch.testing.assert_close(
            f.double(), squares / sum(sizes), rtol=1e-4, atol=1e-12, msg=name
        )
    assert found["2_Dense/linear.weight"].any()


def test_callback_clips_as_their_trainer(folder, tmp_path):
    states, fishers = [], []
    for clip in (0.0, 0.01):
        for collecting in (False, True):
            model = SentenceTransformer(str(folder), device="cpu")
            loss = CosineSimilarityLoss(model)
            callback = FisherCallback(loss=loss, window=1)
            settings = {"max_grad_norm": clip, "max_steps": 1}
            callbacks = [callback] * collecting
            make_trainer(model, tmp_path / "out", callbacks, loss, **settings).train()
            states.append(model.state_dict())
            fishers.append(callback.result)
    for a, b in (states[:2], states[2:]):
        assert all(torch.equal(x, b[n]) for n, x in a.items())
    a, b = (fishers[i].diagonal for i in (1, 3))  # before clipping
    assert all(torch.equal(a[n], x) for n, x in b.items())


def test_callback_refuses(folder, tmp_path):
    model = SentenceTransformer(str(folder), device="cpu")
    for callback, loss, words in (
        (FisherCallback(), None, "without its loss"),
        (
            FisherCallback(loss=CosineSimilarityLoss(model)),
            None,
            "did not call the loss that FisherCallback got",
        ),
        (
            FisherCallback(loss=(ranking := MultipleNegativesRankingLoss(model))),
            ranking,
            "MultipleNegativesRankingLoss of 2 examples is",
        ),
    ):
        trainer = make_trainer(model, tmp_path, [callback], loss)
        with pytest.raises(InputError, match=words):
            trainer.train()
    with pytest.raises(InputError, match="draws labels"):
        FisherCallback("online_mc", loss=CosineSimilarityLoss(model))


def test_checkpoint_of_their_trainer(folder, tmp_path):
    """The optimizer's state has the moments of every module."""
    model = SentenceTransformer(str(folder), device="cpu")
    make_trainer(model, tmp_path).train()
    found = merganser.fisher_from_checkpoint(
        tmp_path / "checkpoint-4",
        tmp_path / "f.safetensors",
        num_examples=10,
        max_grad_norm=1.0,
        model=model,
    )
    assert len(found) == len(list(model.parameters()))
    assert found["2_Dense/linear.weight"].any()
    recipe = tmp_path / "r.yaml"
    models = [
        {
            "model": str(tmp_path / "checkpoint-4"),
            "fisher": str(tmp_path / "f.safetensors"),
        }
    ]
    recipe.write_text(json.dumps({"merge_method": "fisher", "models": models}))
    run("merge", recipe, tmp_path / "merged", "--quiet")
    SentenceTransformer(str(tmp_path / "merged"), device="cpu")
