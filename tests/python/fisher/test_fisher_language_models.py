"""Fishers of causal language models: padding on either side, labels, no labels."""

import architectures
import merganser
import pytest
import torch
from fisher_oracle import assert_fishers_close, define_fisher_of_scores

LENGTHS = [[4, 2, 5], [3, 1]]  # one text has a single token and predicts none
COUNT = 5


def batches_of(name, side, labels, width=6):
    """Texts padded to `width` on one side; the third lacks some labels."""
    full, singles = architectures.batches(name, LENGTHS, width)
    start = 0
    for batch in full:
        mask = batch["attention_mask"]
        batch["labels"] = batch["input_ids"].masked_fill(mask == 0, -100)
        batch["index"] = torch.arange(start, start + len(mask))
        start += len(mask)
        if start == 3:
            batch["labels"][2, 1:3] = -100
        if side == "left":
            for key in ("input_ids", "attention_mask", "labels"):
                rows = zip(batch[key], mask.sum(1), strict=True)
                batch[key] = torch.stack([x.roll(width - int(n)) for x, n in rows])
        if name == "gpt2_lm":
            # GPT-2 counts positions from the first column, even if it is padding.
            batch["position_ids"] = (batch["attention_mask"].cumsum(1) - 1).clamp(0)
        if not labels:
            del batch["labels"]
    return full, singles


def scores(singles, estimator, labels):
    def of(i, logits):
        log_p = torch.log_softmax(logits[:-1], dim=1)
        targets = singles[i]["input_ids"][0, 1:]
        if labels and i == 2:
            counted = [
                place for place in range(len(targets)) if place + 1 not in (1, 2)
            ]
            log_p, targets = log_p[counted], targets[counted]
        if len(targets) == 0:
            return
        if estimator == "exact":
            for row in log_p:
                for score in row:
                    yield score.detach().exp(), score
            return
        if estimator == "mc":
            keys = (i << 24) + torch.arange(len(log_p))
            p = log_p.detach().exp()
            targets = torch.ops.merganser.sample_labels(p, keys, 4, 0)
        yield 1.0, log_p.gather(1, targets[:, None]).sum()

    return of


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize(
    ("estimator", "labels"),
    [
        pytest.param("exact", False, marks=pytest.mark.slow),
        ("mc", True),
        ("mc", False),
        ("empirical", True),
    ],
)
@pytest.mark.parametrize("name", architectures.LANGUAGE_MODELS)
def test_definition(name, estimator, labels, side):
    model = architectures.make(name)
    batches, singles = batches_of(name, side, labels)
    expected = define_fisher_of_scores(
        model, singles, scores(singles, estimator, labels)
    )
    result = merganser.fisher(model, batches, estimator, seed=4)
    assert_fishers_close(result, expected)


@pytest.mark.parametrize("estimator", ["mc", "empirical", "mc_batch"])
@pytest.mark.parametrize("name", architectures.LANGUAGE_MODELS)
def test_more_padding_changes_nothing(name, estimator):
    model = architectures.make(name)
    expected = merganser.fisher(model, batches_of(name, "right", True)[0], estimator)
    for side, width in [("right", 9), ("left", 8)]:
        batches, _ = batches_of(name, side, True, width)
        assert_fishers_close(merganser.fisher(model, batches, estimator), expected)


def test_gradient_of_the_model_own_loss():
    """The empirical Fisher of one text is the square of the gradient that
    transformers computes, times the number of its predictions."""
    model = architectures.make("llama_lm").double().eval()
    batch = batches_of("llama_lm", "right", True)[0][0]
    for i, count in [(0, 3), (2, 2)]:
        text = {key: value[i : i + 1] for key, value in batch.items()}
        index = text.pop("index")
        loss = model(**text).loss
        gradients = torch.autograd.grad(loss, model.parameters())
        result = merganser.fisher(model, [{**text, "index": index}], "empirical")
        for f, gradient in zip(result.values(), gradients, strict=True):
            torch.testing.assert_close(
                f,
                (count * gradient) ** 2,
                rtol=1e-4,
                atol=1e-9,  # float32 loss
            )


def test_exact_of_a_real_vocabulary_is_refused():
    model = architectures.make("llama_lm")
    model.resize_token_embeddings(4000)
    batches, _ = batches_of("llama_lm", "right", True)
    with pytest.raises(merganser.InputError, match=r"15996 backward.*use 'mc'"):
        merganser.fisher(model, batches)
    assert merganser.fisher(model, batches, "mc").num_examples == COUNT


def test_without_mask_and_labels_every_position_counts():
    model = architectures.make("llama_lm")
    ids = torch.randint(2, 43, (3, 4))
    expected = merganser.fisher(
        model, [{"input_ids": ids, "attention_mask": torch.ones_like(ids)}], "mc"
    )
    assert_fishers_close(merganser.fisher(model, [{"input_ids": ids}], "mc"), expected)
