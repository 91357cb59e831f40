"""merganser.fisher on eleven architectures, against a float64 loop over examples."""

import warnings

import architectures
import merganser
import pytest
import torch
from fisher_oracle import (
    assert_fishers_close,
    define_fisher,
    define_fisher_of_scores,
)
from torch import nn


def run(name, model, batches, *args, **options):
    """Runs merganser.fisher; expects a warning only for parameters without a rule."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = merganser.fisher(model, batches, *args, **options)
    said = [str(w.message) for w in caught if "single example" in str(w.message)]
    parts = architectures.BY_EXAMPLE.get(name, [])
    text = " ".join(said)
    assert bool(said) == bool(parts)
    assert all(part in text for part in parts)
    names = [word for word in text.split() if "." in word and word[0] != "("]
    assert len(names) == len(set(names))
    for other in ("word_embeddings", "classifier", "output.dense", "SelfAttention.q"):
        assert other not in text
    return result


def one_hot(label, p):
    return nn.functional.one_hot(label, len(p)).to(p.dtype)


@pytest.mark.parametrize("estimator", ["exact", "mc", "empirical"])
@pytest.mark.parametrize("name", architectures.CLASSIFIERS)
def test_classifiers(name, estimator):
    model = architectures.make(name)
    batches, examples = architectures.batches(name)
    labels = torch.cat([batch["labels"] for batch in batches])

    def weights(i, p):
        if estimator == "exact":
            return p
        if estimator == "empirical":
            return one_hot(labels[i], p)
        index = torch.tensor([i])
        return one_hot(torch.ops.merganser.sample_labels(p[None], index, 4, 0)[0], p)

    expected = define_fisher(model, examples, weights)
    assert_fishers_close(run(name, model, batches, estimator, seed=4), expected)


@pytest.mark.parametrize(
    "estimator", [pytest.param("exact", marks=pytest.mark.slow), "mc", "empirical"]
)
@pytest.mark.parametrize("name", architectures.LANGUAGE_MODELS)
def test_language_models(name, estimator):
    """An example is a sequence; position t predicts token t + 1."""
    model = architectures.make(name)
    batches, examples = architectures.batches(name, lengths=[[4, 2, 5], [3]])
    for batch in batches:
        batch["labels"] = batch["input_ids"].masked_fill(
            batch["attention_mask"] == 0, -100
        )

    def scores(i, logits):
        log_p = torch.log_softmax(logits[:-1], dim=1)
        if estimator == "exact":
            for row in log_p:
                for score in row:
                    yield score.detach().exp(), score
            return
        targets = examples[i]["input_ids"][0, 1:]
        if estimator == "mc":
            keys = (i << 24) + torch.arange(len(log_p))
            p = log_p.detach().exp()
            targets = torch.ops.merganser.sample_labels(p, keys, 4, 0)
        yield 1.0, log_p.gather(1, targets[:, None]).sum()

    expected = define_fisher_of_scores(model, examples, scores)
    assert_fishers_close(run(name, model, batches, estimator, seed=4), expected)


@pytest.mark.slow
@pytest.mark.parametrize("estimator", ["exact", "mc", "empirical"])
@pytest.mark.parametrize("name", [*architectures.CLASSIFIERS, "gpt2_lm", "llama_lm"])
def test_batch_size_order_and_padding_do_not_matter(name, estimator):
    if name.endswith("_lm") and estimator == "exact":
        estimator = "mc"  # exact needs too many passes
    model = architectures.make(name)
    batches, examples = architectures.batches(name)
    language_model = name.endswith("_lm")
    expected = run(
        name, model, [without(b, language_model) for b in batches], estimator
    )
    labels = torch.cat([batch["labels"] for batch in batches])
    rows = [
        {**example, "labels": labels[i : i + 1], "index": torch.tensor([i])}
        for i, example in enumerate(examples)
    ]
    pad = 1 if name == "roberta" else 0
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(3))
    shuffled = [
        without(collate([rows[i] for i in chunk], 13, pad), language_model)
        for chunk in order.split([1, 5, len(rows) - 6])
    ]
    assert_fishers_close(run(name, model, shuffled, estimator), expected)


def without(batch, language_model):
    """Labels of a language model are its tokens."""
    if not language_model:
        return batch
    labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
    return {**batch, "labels": labels}


def collate(rows, width, pad):
    def join(key):
        parts = [row[key] for row in rows]
        if key in ("input_ids", "attention_mask"):
            value = pad if key == "input_ids" else 0
            parts = [
                nn.functional.pad(x, (0, width - x.shape[1]), value=value)
                for x in parts
            ]
        return torch.cat(parts)

    return {key: join(key) for key in rows[0]}
