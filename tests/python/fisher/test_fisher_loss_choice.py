"""The choice of a loss by merganser.fisher, functions as losses, and refusals."""

import merganser
import pytest
import tiny_models
import torch
import transformers as tf
from fisher_oracle import assert_fishers_close, define_fisher_of_scores
from torch import nn
from torch.nn import functional

X = torch.linspace(-1, 1, 24).sin().view(6, 4)


def token_batch(labels):
    batch = tiny_models.batch([4, 2, 3])
    return {**batch, "labels": labels(batch)}


def tokens(batch):
    return batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)


def config(kind=tf.BertConfig, **options):
    return kind(**tiny_models._layers(), **options)


def llama():
    return tf.LlamaForCausalLM(config(tf.LlamaConfig, num_key_value_heads=2))


def problem(kind, outputs=3):
    return lambda: tiny_models.bert(outputs, problem_type=kind)


def integers(batch):
    return batch["labels"]


def ones_and_zeros(_):
    return torch.tensor([[1, 0, 1], [0, 0, 0], [1.0, 1, 1]])


def reals(_):
    return torch.tensor([[0.5, 2.0, -1], [0, 3, 0], [1, 1, 1]])


# A model, labels, and the loss inferred from them.
TRANSFORMERS = {
    "problem_type classification": (
        problem("single_label_classification"),
        integers,
        "classification",
    ),
    "problem_type multilabel": (
        problem("multi_label_classification"),
        ones_and_zeros,
        "multilabel",
    ),
    "problem_type regression": (problem("regression"), reals, "regression"),
    "by integers": (problem(None), integers, "classification"),
    "by ones and zeros": (problem(None), ones_and_zeros, "multilabel"),
    "one output": (problem(None, 1), lambda _: torch.randn(3), "regression"),
    "tokens": (
        lambda: tf.BertForTokenClassification(config(num_labels=43)),
        tokens,
        "classification",
    ),
    "masked": (lambda: tf.BertForMaskedLM(config()), tokens, "classification"),
    "gpt2": (
        lambda: tf.GPT2LMHeadModel(
            tf.GPT2Config(vocab_size=43, n_embd=8, n_layer=1, n_head=2, n_positions=8)
        ),
        tokens,
        "causal_lm",
    ),
    "llama": (llama, tokens, "causal_lm"),
}


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_auto_of_transformers(name):
    make, labels, loss = TRANSFORMERS[name]
    model, batch = make(), token_batch(labels)
    actual = merganser.fisher(model, [batch], "empirical")
    assert_same(actual, merganser.fisher(model, [batch], "empirical", loss=loss))
    # Labels in the form of transformers' own loss for this model.
    model.eval()(**batch).loss.backward()


@pytest.mark.parametrize(
    ("outputs", "labels", "loss"),
    [
        (3, torch.tensor([0, 1, 2, 0, 1, 2]), "classification"),
        (3, (X[:, :3] > 0).float(), "multilabel"),
        (1, X[:, :1], "regression"),
        (1, X[:, 0], "regression"),
        (1, torch.arange(6), "regression"),
    ],
)
def test_auto_of_plain_modules(outputs, labels, loss):
    model = nn.Linear(4, outputs)
    actual = merganser.fisher(model, [(X, labels)], "empirical")
    assert_same(actual, merganser.fisher(model, [(X, labels)], "empirical", loss=loss))


@pytest.mark.parametrize(
    ("model", "labels"),
    [
        (nn.Linear(4, 3), X[:, :3]),  # regression, or soft labels
        (nn.Unflatten(1, (2, 2)), None),
    ],
)
def test_auto_does_not_guess(model, labels):
    model = nn.Sequential(nn.Linear(4, 4), model)
    data = [X] if labels is None else [(X, labels)]
    with pytest.raises(
        merganser.InputError, match=r"loss='auto' cannot interpret.*\(B, "
    ):
        merganser.fisher(model, data)


@pytest.mark.parametrize("estimator", ["exact", "mc", "mc_batch", "empirical"])
@pytest.mark.parametrize("shape", [(6,), (6, 1)])
@pytest.mark.parametrize("labels", ["none", torch.float32, torch.long, torch.bool])
def test_auto_asks_for_the_loss_of_one_output(labels, shape, estimator):
    """Labels 0 and 1 may be classes or values: F differs by 1 / (p (1 - p))."""
    model = Output(shape)
    batch = X if labels == "none" else (X, (X[:, 0] > 0).to(labels).view(shape))
    with pytest.raises(merganser.InputError, match="'multilabel'.*or loss='regr"):
        merganser.fisher(model, [batch], estimator)


class Output(nn.Linear):
    def __init__(self, shape):
        super().__init__(4, 1)
        self.shape = (-1, *shape[1:])

    def forward(self, input):  # noqa: A002 (the name of a batch's key)
        return super().forward(input).view(self.shape)


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(6,), (6, 1)])
def test_one_logit(shape):
    """A Bernoulli with p = sigmoid(z): F = p (1 - p) (dz)^2."""
    model = Output(shape)
    result = merganser.fisher(model, X.split(4), loss="multilabel")
    p = torch.sigmoid(X @ model.weight.T + model.bias).detach()
    expected = (p * (1 - p) * X.square()).mean(0, keepdim=True)
    torch.testing.assert_close(result["weight"], expected)
    labels = (X[:, 0] > 0).float()
    data = [(X, labels.view(shape))]
    given = merganser.fisher(model, data, "empirical", loss="multilabel")
    expected = ((labels[:, None] - p).square() * X.square()).mean(0, keepdim=True)
    torch.testing.assert_close(given["weight"], expected)
    drawn = merganser.fisher(model, [X], "mc", loss="multilabel", samples=1000)
    assert (drawn["weight"] / result["weight"] - 1).abs().max() < 0.2


def assert_same(a, b):
    assert set(a) == set(b)
    assert all(torch.equal(a[name], b[name]) and a[name].any() for name in a)


def margin(output, labels):
    """A negative log-likelihood that is none of the named losses: Poisson."""
    return (output.exp() - labels * output).sum(1)


@pytest.mark.parametrize("sizes", [(6,), (2, 1, 3)])
def test_function(sizes):
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
    labels = torch.arange(18).remainder(5).view(6, 3)
    data = list(zip(X.split(sizes), labels.split(sizes), strict=True))
    result = merganser.fisher(model, data, "empirical", loss=margin)
    expected = define_fisher_of_scores(
        model,
        X.split(1),
        lambda i, outputs: [(1.0, -margin(outputs[None], labels[i]).sum())],
    )
    assert_fishers_close(result, expected)


def test_function_of_the_model_output():
    """It gets the model's return value, not only the logits."""
    model, batch = tiny_models.bert(), tiny_models.batch([4, 2, 3])

    def loss(output, labels):
        return functional.cross_entropy(output.logits, labels, reduction="none")

    assert_fishers_close(
        merganser.fisher(model, [batch], "empirical", loss=loss),
        merganser.fisher(model, [batch], "empirical"),
    )


def test_function_without_labels():
    """For example an energy, or a loss with targets in the inputs."""
    model = nn.Linear(4, 3)
    result = merganser.fisher(
        model, [X], "empirical", loss=lambda output, _: output.square().sum(1)
    )
    expected = define_fisher_of_scores(
        model, X.split(1), lambda i, outputs: [(1.0, outputs.square().sum())]
    )
    assert_fishers_close(result, expected)


class Places(nn.Module):
    """Reads (B, 4) as logits (B, positions, 4)."""

    def __init__(self, positions, classes=4):
        super().__init__()
        self.layer = nn.Linear(4, classes)
        self.positions = positions

    def forward(self, input):  # noqa: A002 (the name of a batch's key)
        return self.layer(input)[:, None].repeat(1, self.positions, 1)


def zeros(*shape, dtype=torch.long):
    return torch.zeros(shape, dtype=dtype)


K3 = nn.Linear(4, 3)
LM = Places(2)
NO_DISTRIBUTION = "needs the distribution of the labels"
REFUSED = {
    "exact, vocabulary": (Places(20, 600), None, "exact", "causal_lm", "use 'mc'"),
    "exact, classes": (nn.Linear(4, 20_000), None, "exact", "auto", "use 'mc'"),
    "function, exact": (K3, None, "exact", margin, NO_DISTRIBUTION),
    "function, mc": (K3, None, "mc", margin, NO_DISTRIBUTION),
    "function, mc_batch": (K3, None, "mc_batch", margin, NO_DISTRIBUTION),
    "function, mean": (
        K3,
        zeros(6),
        "empirical",
        functional.cross_entropy,
        r"must return one negative log-likelihood per example.*not \(\)",
    ),
    "function, float": (
        K3,
        zeros(6),
        "empirical",
        lambda output, labels: 1.0,
        "not float",
    ),
    "function, None": (K3, None, "empirical", lambda output, labels: None, "NoneType"),
    "no labels": (K3, None, "empirical", "auto", "no 'labels'"),
    "no labels, lm": (LM, None, "empirical", "causal_lm", "no 'labels'"),
    "no labels, multi": (K3, None, "empirical", "multilabel", "no 'labels'"),
    "no labels, regression": (K3, None, "empirical", "regression", "no 'labels'"),
    "label 3": (K3, zeros(6) + 3, "empirical", "auto", r"0 to 2.*got 3 to 3"),
    "label -1": (K3, zeros(6) - 1, "empirical", "auto", r"0 to 2.*got -1"),
    "label -100": (K3, zeros(6) - 100, "empirical", "auto", r"0 to 2.*got -100"),
    "token 9": (LM, zeros(6, 2) + 9, "empirical", "causal_lm", r"0 to 3.*got 9"),
    "real labels": (K3, torch.rand(6), "empirical", "classification", "float32"),
    "bool labels": (K3, zeros(6) > 0, "empirical", "classification", "torch.bool"),
    "(B, 1) labels": (K3, zeros(6, 1), "empirical", "auto", r"\(B,\) of.*\(B, 1\)"),
    "5 of 6 labels": (K3, zeros(5), "exact", "auto", "tensor of 6 rows"),
    "labels as a list": (K3, [0] * 6, "empirical", "auto", "not list"),
    "lm, (B,) labels": (LM, zeros(6), "empirical", "causal_lm", r"\(B, 2\) of.*\(B,\)"),
    "lm, (B, K)": (K3, zeros(6), "mc", "causal_lm", r"logits \(B, L, K\).*\(B, 3\)"),
    "one class": (nn.Linear(4, 1), zeros(6), "exact", "classification", "K >= 2"),
    "(B, L, K, M)": (
        nn.Sequential(LM, nn.Unflatten(2, (2, 2))),
        None,
        "mc",
        "classification",
        r"\(B, 2, 2, 2\)",
    ),
    "multilabel, 2": (K3, zeros(6, 3) + 2, "empirical", "multilabel", "0 and 1"),
    "multilabel, soft": (K3, zeros(6, 3) + 0.5, "empirical", "multilabel", "0 and 1"),
    "multilabel, (B,)": (K3, zeros(6), "empirical", "multilabel", r"\(B, 3\), not"),
    "multilabel, (B, L, K)": (LM, None, "mc", "multilabel", r"\(B, 2, 4\)"),
    "regression, (B,)": (K3, torch.rand(6), "empirical", "regression", r"\(B, 3\)"),
    "regression, (B, L, K)": (LM, None, "mc", "regression", r"\(B, 2, 4\)"),
    "unknown": (K3, None, "exact", "hinge", "loss must be one of auto, cl.*'hinge'"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name):
    model, labels, estimator, loss, message = REFUSED[name]
    data = [{"input": X} if labels is None else {"input": X, "labels": labels}]
    with pytest.raises(merganser.InputError, match=message) as caught:
        merganser.fisher(model, data, estimator, loss=loss)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200


def test_labels_that_are_not_needed_are_checked_too():
    """Wrong labels show that the batch is not what the user meant."""
    with pytest.raises(merganser.InputError, match="labels"):
        merganser.fisher(K3, [(X, X)], "exact", loss="classification")
