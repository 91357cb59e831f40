"""merganser.fisher with every loss, against a float64 loop over examples and labels.

The oracle enumerates all labels of an example with their probabilities. It does not
assume that outputs are independent, as the estimators do."""

import itertools
import math

import architectures
import merganser
import pytest
import tiny_models
import torch
import transformers as tf
from fisher_oracle import assert_fishers_close, define_fisher_of_scores
from torch import nn
from torch.nn import functional

SIZES = (4, 1, 3)
COUNT = sum(SIZES)
ROW = 1 << 24  # between the keys of two examples' samples


class Case:
    """A model, the examples, and the distribution of the labels.

    batches: with labels. examples: the model's arguments, single and unpadded.
    labels[i]: one number per row of the outputs of example i (-100: does not count).
    """

    loss: str

    def rows(self, i, outputs):
        """The outputs that count, (R, ...)."""
        return outputs

    def choices(self, row):
        """The possible labels of a row of outputs."""

    def log_p(self, row, label):
        """Log-likelihood up to a constant."""

    def draw(self, rows, keys, seed, sample):
        p = torch.stack(
            [
                torch.stack([self.log_p(row, y) for y in self.choices(row)])
                for row in rows.detach()
            ]
        ).softmax(1)
        picked = torch.ops.merganser.sample_labels(p, keys, seed, sample)
        return [self.choices(row)[k] for row, k in zip(rows, picked, strict=True)]

    def score(self, rows, labels):
        return sum(self.log_p(r, y) for r, y in zip(rows, labels, strict=True))

    def sampled(self, i, outputs, seed, sample):
        """log p of the labels sampled for example i."""
        rows = self.rows(i, outputs)
        keys = i * ROW + torch.arange(len(rows))
        return self.score(rows, self.draw(rows, keys, seed, sample))

    def scores(self, estimator, seed=0, samples=1):
        def exact(i, outputs):
            rows = self.rows(i, outputs)
            for labels in itertools.product(*(self.choices(row) for row in rows)):
                score = self.score(rows, labels)
                yield self.probability(rows, labels), score

        def mc(i, outputs):
            for sample in range(samples):
                yield 1 / samples, self.sampled(i, outputs, seed, sample)

        def empirical(i, outputs):
            yield 1.0, self.score(self.rows(i, outputs), self.labels[i])

        return {"exact": exact, "mc": mc, "empirical": empirical}[estimator]

    def probability(self, rows, labels):
        return self.score(rows, labels).detach().exp()


class Vectors(Case):
    def __init__(self, outputs, labels, squeeze=False):
        layers = [nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, outputs)]
        self.model = nn.Sequential(*layers, *[nn.Flatten(0)] * squeeze)
        self.examples = [x[None] for x in torch.randn(COUNT, 5)]
        y = labels((COUNT, outputs))
        self.labels = list(y)
        inputs = torch.cat(self.examples).split(SIZES)
        if squeeze:
            y = y[:, 0]
        self.batches = list(zip(inputs, y.split(SIZES), strict=True))

    def rows(self, i, outputs):
        return outputs.reshape(-1)


class Multilabel(Vectors):
    loss = "multilabel"

    def __init__(self):
        super().__init__(3, lambda shape: torch.randint(0, 2, shape).float())

    def choices(self, row):
        return (0, 1)

    def log_p(self, row, label):
        return functional.logsigmoid(row if label == 1 else -row)


class Regression(Vectors):
    """Labels at the mean +1 or -1 have the first two moments of the normal
    distribution, which determine the Fisher."""

    loss = "regression"

    def __init__(self, outputs, squeeze=False):
        super().__init__(outputs, torch.randn, squeeze)

    def choices(self, row):
        return (row.detach() - 1, row.detach() + 1)

    def log_p(self, row, label):
        return -0.5 * (label - row) ** 2

    def probability(self, rows, labels):
        return 0.5 ** len(rows)


class Tokens(Case):
    """A label for each of up to 3 tokens; some do not count."""

    loss = "classification"

    def __init__(self, labels=True):
        config = tf.BertConfig(**tiny_models._layers(), num_labels=3)
        config.num_hidden_layers = 1
        self.model = tiny_models.with_larger_weights(
            tf.BertForTokenClassification(config)
        )
        self.batches, self.examples = architectures.batches("bert", [[3, 1, 2], [2, 2]])
        self.labels, self.counted = [], []
        for batch in self.batches:
            mask = batch["attention_mask"]
            y = torch.randint(0, 3, mask.shape).masked_fill(mask == 0, -100)
            y[-1, 1] = -100
            batch["labels"] = y
            for row, length in zip(y, mask.sum(1), strict=True):
                self.counted.append((row[:length] >= 0) | (not labels))
                self.labels.append(row[:length][self.counted[-1]].tolist())
            if not labels:
                del batch["labels"]

    def rows(self, i, outputs):
        return outputs[self.counted[i]]

    def choices(self, row):
        return range(len(row))

    def log_p(self, row, label):
        return row.log_softmax(0)[label]


CASES = {
    "multilabel": Multilabel,
    "regression": lambda: Regression(1, squeeze=True),
    "regression-1": lambda: Regression(1),
    "regression-3": lambda: Regression(3),
    "tokens": Tokens,
    "tokens-unlabelled": lambda: Tokens(labels=False),
}


def make(name):
    torch.manual_seed(2)
    return CASES[name]()


@pytest.mark.parametrize(
    ("estimator", "samples"), [("exact", 1), ("mc", 1), ("mc", 3), ("empirical", 1)]
)
@pytest.mark.parametrize("name", CASES)
def test_definition(name, estimator, samples):
    case = make(name)
    if name == "tokens-unlabelled" and estimator == "empirical":
        with pytest.raises(merganser.InputError, match="no 'labels'"):
            merganser.fisher(case.model, case.batches, estimator)
        return
    options = {"samples": samples, "seed": 4, "loss": case.loss}
    result = merganser.fisher(case.model, case.batches, estimator, **options)
    scores = case.scores(estimator, 4, samples)
    expected = define_fisher_of_scores(case.model, case.examples, scores)
    assert_fishers_close(result, expected)


@pytest.mark.parametrize("name", [n for n in CASES if not n.startswith("tokens")])
def test_mc_batch(name):
    """B (gradient of the batch's mean loss)^2, averaged over the examples."""
    case = make(name)
    result = merganser.fisher(
        case.model, case.batches, "mc_batch", samples=2, seed=4, loss=case.loss
    )
    model = case.model.double()
    expected = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    start = 0
    for inputs, _ in case.batches:
        size = len(inputs)
        outputs = model(inputs.double())
        for sample in range(2):
            drawn = [
                case.sampled(start + j, outputs[j], 4, sample) for j in range(size)
            ]
            gradients = torch.autograd.grad(
                sum(drawn) / size, model.parameters(), retain_graph=True
            )
            for total, gradient in zip(expected.values(), gradients, strict=True):
                total += size / COUNT * size * gradient**2 / 2
        start += size
    assert_fishers_close(result, expected)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("estimator", "samples"), [("mc", 1), ("mc", 3), ("mc_batch", 1)]
)
@pytest.mark.parametrize("name", ["multilabel", "regression-3", "tokens-plain"])
def test_sampling_is_unbiased(name, estimator, samples):
    """The mean over seeds equals the exact one within its standard error."""
    if name == "tokens-plain":
        model = nn.Sequential(nn.Embedding(7, 4), nn.Tanh(), nn.Linear(4, 3))
        batches, loss = torch.randint(0, 7, (6, 3)).split(2), "classification"
    else:
        case = make(name)
        model, batches, loss = case.model, case.batches, case.loss
    exact = flat(merganser.fisher(model, batches, loss=loss))
    seeds = 120
    draws = torch.stack(
        [
            flat(
                merganser.fisher(
                    model, batches, estimator, loss=loss, samples=samples, seed=seed
                )
            )
            for seed in range(seeds)
        ]
    )
    error = (draws.mean(0) - exact).abs()
    standard_error = draws.std(0) / math.sqrt(seeds) + 1e-6 * exact
    assert (error <= 5 * standard_error).all()
    total = draws.sum(1).double()
    standard_error = total.std() / math.sqrt(seeds)
    assert abs(total.mean() - exact.sum()) < 3 * standard_error < 0.3 * exact.sum()


def flat(fisher):
    return torch.cat([f.flatten() for f in fisher.values()])


@pytest.mark.parametrize("estimator", ["exact", "mc", "empirical"])
@pytest.mark.parametrize("name", ["multilabel", "regression-3", "tokens"])
def test_batch_size_and_order_do_not_matter(name, estimator):
    case = make(name)
    expected = merganser.fisher(case.model, case.batches, estimator, loss=case.loss)
    if name == "tokens":
        rows = [row for batch in case.batches for row in batch["labels"]]
        single = [
            {**example, "labels": row[None, : example["input_ids"].shape[1]]}
            for example, row in zip(case.examples, rows, strict=True)
        ]
    else:
        single = [
            {"input": x[None], "labels": y[None]}
            for inputs, labels in case.batches
            for x, y in zip(inputs, labels, strict=True)
        ]
    singles = [{**s, "index": torch.tensor([i])} for i, s in enumerate(single)]
    result = merganser.fisher(case.model, singles[::-1], estimator, loss=case.loss)
    assert_fishers_close(result, expected)
