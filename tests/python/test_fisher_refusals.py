"""What merganser.fisher refuses, before it could give a wrong number."""

import merganser
import pytest
import tiny_models
import torch
import torch.nn.utils.prune
from torch import nn


class Classifier(nn.Module):
    """Embeds tokens (B, L), applies `body`, classifies the mean."""

    def __init__(self, body):
        super().__init__()
        self.embedding = nn.Embedding(10, 4)
        self.body = body
        self.head = nn.Linear(4, 2)

    def forward(self, ids):
        return self.head(self.body(self.embedding(ids)).mean(1))


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x):
        return self.layer(self.layer(x))


class Functional(nn.Module):
    """Uses a layer's weight without calling the layer."""

    def __init__(self, call_too):
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.call_too = call_too

    def forward(self, x):
        if self.call_too:
            x = self.layer(x)
        return nn.functional.linear(x, self.layer.weight)


class Transposed(nn.Module):
    """Works on (L, B, C), as sequence-first models do."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x):
        return self.layer(x.transpose(0, 1)).transpose(0, 1)


class Mixing(nn.Module):
    """Takes the mean of the batch off, as BatchNorm does while training."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x):
        return self.layer(x - x.mean(0, keepdim=True))


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.second = nn.Linear(4, 4)
        self.second.weight = self.first.weight

    def forward(self, x):
        return self.second(self.first(x))


class Scale(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(4))

    def forward(self, x):
        return x * self.scale


class InputChanged(nn.Module):
    """Changes a layer's input after the layer has used it."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x):
        y = self.layer(x)
        x.mul_(2)
        return y


class Foreign(nn.Module):
    """Has a trainable tensor that is no parameter, on a branch of its own."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.foreign = torch.ones(4, requires_grad=True)

    def forward(self, x):
        return x + self.layer(x.detach() * self.foreign)


def pruned():
    layer = nn.Linear(4, 4)
    nn.utils.prune.l1_unstructured(layer, "weight", 0.5)
    return layer


def patched():
    layer = nn.Linear(4, 4)
    layer.forward = lambda x: nn.functional.linear(x, 2 * layer.weight, layer.bias)
    return layer


def tokens(batch=3, length=5):
    return [torch.randint(0, 10, (batch, length))]


@pytest.mark.parametrize(
    ("body", "named"),
    [
        (Twice(), r"body\.layer is called more than once"),
        (Functional(call_too=False), r"body\.layer\.weight is also used outside"),
        (Functional(call_too=True), r"body\.layer\.weight is also used outside"),
        (Transposed(), r"first dimension of body\.layer's input must be the batch"),
        (Mixing(), r"body\.layer's output|embedding's output"),
        (Tied(), r"body\.second\.weight \(tied to body\.first\.weight\)"),
        (Scale(), r"body\.scale \(in a Scale\)"),
        (nn.Embedding(10, 4, max_norm=1.0), r"body\.weight \(in a Embedding\)"),
        (nn.utils.parametrizations.weight_norm(nn.Linear(4, 4)), r"body\.parametriz"),
        (pruned(), r"body\.weight_orig \(in a Linear\)"),
        (nn.utils.spectral_norm(nn.Linear(4, 4)), r"body\.weight_orig \(in a Linear"),
        (patched(), r"body\.weight \(in a layer with its own forward\)"),
        (InputChanged(), r"body\.layer's input is changed in place"),
        (Foreign(), r"logits depend on body\.layer, but the backward"),
        (nn.TransformerEncoderLayer(4, 2, batch_first=True), r"body\.self_attn\.in_pr"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_unsupported(body, named):
    model = Classifier(body)
    before = [dict(vars(module)) for module in model.modules()]
    with pytest.raises(NotImplementedError, match=named):
        merganser.fisher(model, tokens())
    assert [dict(vars(module)) for module in model.modules()] == before


def test_old_weight_norm():
    with pytest.warns(FutureWarning):
        layer = nn.utils.weight_norm(nn.Linear(4, 4))
    with pytest.raises(NotImplementedError, match=r"body\.weight_g \(in .*weight_v \("):
        merganser.fisher(Classifier(layer), tokens())


def test_layers_that_do_not_reach_the_logits():
    """Their Fisher is zero: the logits do not depend on them."""
    model = Classifier(nn.Identity())
    model.unused = nn.Linear(4, 4)
    result = merganser.fisher(model, tokens())
    assert not result["unused.weight"].any()
    assert result["head.weight"].any()
    with pytest.raises(merganser.InputError, match="none of the model's trainable"):
        merganser.fisher(Detached(), [torch.randn(3, 4)])


class Detached(nn.Linear):
    def __init__(self):
        super().__init__(4, 2)
        self.layer = nn.Linear(4, 2)
        self.requires_grad_(False)
        self.layer.requires_grad_(True)

    def forward(self, x):
        return self.layer(x).detach()


def test_sequence_first_is_noticed_where_length_equals_batch():
    with pytest.raises(NotImplementedError, match=r"rows of body\.layer's output"):
        merganser.fisher(Classifier(Transposed()), tokens(4, 4))


@pytest.mark.parametrize("body", [Twice(), Functional(True), Tied(), Scale()])
def test_mc_batch_takes_any_model(body):
    result = merganser.fisher(Classifier(body), tokens(), "mc_batch")
    assert all((f > 0).any() for f in result.values())


def test_frozen_parameters_are_no_obstacle():
    model = Classifier(Scale())
    model.body.requires_grad_(False)
    assert "body.scale" not in merganser.fisher(model, tokens())


LOGITS = torch.zeros(3, 2)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"estimator": "hessian"}, "estimator must be one of exact, mc,"),
        ({"samples": 2}, "samples is for mc and mc_batch"),
        ({"estimator": "mc", "samples": 0}, "samples must be at least 1"),
        ({"limit": 0}, "limit must be at least 1"),
        ({"num_examples": 0}, "num_examples must be at least 1"),
        ({"estimator": "mc", "samples": 1.5}, "samples must be a whole number, not 1"),
        ({"limit": "all"}, "limit must be a whole number, not 'all'"),
        ({"seed": -1}, r"seed must be at least 0 and below 2\*\*63, not -1"),
        ({"seed": 2**63}, r"seed must be at least 0 and below 2\*\*63"),
        ({"seed": None}, "seed must be a whole number, not None"),
        ({"estimator": "empirical"}, "no 'labels'"),
        ({"data": []}, "data has no examples"),
        ({"data": [{"text": ["a"]}]}, "return_tensors"),
        ({"data": ["text"]}, "not str"),
        ({"model_path": "absent"}, "absent"),
    ],
    ids=str,
)
def test_bad_arguments(arguments, named):
    arguments = {"model": nn.Linear(4, 2), "data": [torch.randn(3, 4)]} | arguments
    with pytest.raises(merganser.InputError, match=named):
        merganser.fisher(**arguments)


@pytest.mark.parametrize("labels", [[0, 1, 2], [0, -1, 1]])
def test_labels_of_no_class(labels):
    data = [(torch.randn(3, 4), torch.tensor(labels))]
    with pytest.raises(merganser.InputError, match="labels must be from 0 to 1"):
        merganser.fisher(nn.Linear(4, 2), data, "empirical")


@pytest.mark.parametrize("estimator", ["exact", "mc", "empirical", "mc_batch"])
@pytest.mark.parametrize(
    ("numbers", "given"),
    [
        (torch.zeros(3), r"torch\.float32 of shape \(3,\)"),
        (torch.zeros(2, dtype=torch.int64), r"torch\.int64 of shape \(2,\)"),
        (torch.ones(3, 4, dtype=torch.int64), r"torch\.int64 of shape \(3, 4\)"),
        (torch.ones(3, dtype=torch.bool), r"torch\.bool of shape"),
        ([0, 1, 1], "list"),
    ],
)
def test_labels_that_are_none(estimator, numbers, given):
    """Such as an attention mask where the labels are expected."""
    inputs = torch.randn(3, 4)
    with pytest.raises(merganser.InputError, match=f"labels must be 3.*not {given}"):
        merganser.fisher(nn.Linear(4, 2), [(inputs, numbers)], estimator)
    with pytest.raises(merganser.InputError, match=f"index must be 3.*not {given}"):
        data = [{"input": inputs, "index": numbers}]
        merganser.fisher(nn.Linear(4, 2), data, estimator)


def test_labels_twice():
    labels = torch.zeros(3).long()
    data = [({"input": torch.randn(3, 4), "labels": labels}, labels)]
    with pytest.raises(merganser.InputError, match="labels twice"):
        merganser.fisher(nn.Linear(4, 2), data)


def test_single_logit():
    model = tiny_models.bert(num_labels=1)
    with pytest.raises(merganser.InputError, match="K >= 2"):
        merganser.fisher(model, [tiny_models.batch([3, 4])])


def test_no_trainable_parameter():
    with pytest.raises(merganser.InputError, match="no trainable parameter"):
        merganser.fisher(nn.Linear(4, 2).requires_grad_(False), [torch.randn(3, 4)])


def test_not_finite():
    with pytest.raises(merganser.Error, match="weight is not finite"):
        merganser.fisher(nn.Linear(4, 2), [torch.full((1, 4), float("nan"))])
