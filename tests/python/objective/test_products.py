"""Products of per-example gradients with task vectors, against a loop of float64
gradients of single examples."""

import warnings

import architectures
import pytest
import torch
from fisher_oracle import logits_of
from merganser._fisher.data import Data
from merganser._fisher.forward import Forward
from merganser._fisher.model_state import differentiable
from merganser._fisher.products import _by_example, _by_token
from merganser._fisher.subspace import Columns
from merganser._fisher.subspace_sums import SubspaceSums
from merganser._objective.groups import group_names
from torch import nn

T = 3


class Convolutions(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(2, 4, 3, padding=1)
        self.norm = nn.GroupNorm(2, 4)
        self.second = nn.Conv2d(4, 6, 3, groups=2)
        self.scale = nn.Parameter(torch.ones(6, 1, 1))
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        x = self.norm(self.first(x)).relu()
        return self.head((self.second(x) * self.scale).relu().mean((2, 3)))


class Tied(nn.Module):
    """A table that is looked up with padding, multiplied and transposed."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(7, 7, padding_idx=0)
        self.mix = nn.Linear(7, 7)
        self.mix.weight = self.table.weight
        self.norm = nn.LayerNorm(7)

    def forward(self, ids):
        x = self.mix(self.table(ids))
        return (self.norm(x) @ self.table.weight).mean(1)


def vectors_for(model):
    generator = torch.Generator().manual_seed(2)
    return [
        {
            name: torch.randn(p.shape, generator=generator, dtype=torch.float64)
            for name, p in model.named_parameters()
        }
        for _ in range(T)
    ]


def measure(model, data, loss="classification", groups="tensor", **options):
    columns = Columns(
        dict(model.named_parameters()),
        vectors_for(model),
        group_names([name for name, _ in model.named_parameters()], groups),
    )
    read = Data(
        data,
        model,
        collator=None,
        batch_size=1,
        limit=None,
        seed=0,
        num_examples=None,
    )
    with differentiable(model):
        forward = Forward(model, loss, None)
        found = SubspaceSums(model, columns, lambda: forward.loss, **options)
        for batch in read.read(torch.device("cpu"), None):
            found.add(forward, batch)
    return found


def projected(model, score, columns):
    """P^T of a gradient."""
    parameters = dict(model.named_parameters())
    gradients = torch.autograd.grad(
        score, parameters.values(), retain_graph=True, allow_unused=True
    )
    found = {
        name: torch.zeros_like(p) if g is None else g
        for (name, p), g in zip(parameters.items(), gradients, strict=True)
    }
    u = torch.zeros(columns.vectors, len(columns.groups), dtype=torch.float64)
    for t, vector in enumerate(vectors_for(model)):
        for name, gradient in found.items():
            u[t, columns.group_of[name]] += (gradient * vector[name]).sum()
    return u.flatten()


def define(model, examples, labels, columns):
    """Mean gradient of -log p(label), and the exact Fisher, in the columns' span."""
    model.eval()
    gradient = torch.zeros(columns.size, dtype=torch.float64)
    fisher = torch.zeros(columns.size, columns.size, dtype=torch.float64)
    for example, label in zip(examples, labels, strict=True):
        log_p = torch.log_softmax(logits_of(model, example)[0], -1)
        gradient -= projected(model, log_p[label], columns)
        for k, p in enumerate(log_p.detach().exp()):
            u = projected(model, log_p[k], columns)
            fisher += p * torch.outer(u, u)
    return gradient / len(labels), fisher / len(labels)


def assert_close(found, expected, rtol=1e-10):
    error = (found - expected).norm()
    assert error <= rtol * expected.norm(), float(error / expected.norm())


def assert_defined(model, data, examples, labels, **options):
    found = measure(model, data, **options)
    gradient, fisher = define(model, examples, labels, found.columns)
    assert found.count == len(labels)
    assert_close(found.gradient, gradient)
    assert_close(found.fisher, fisher)


@pytest.mark.slow
@pytest.mark.parametrize("groups", ["global", "block", "tensor"])
@pytest.mark.parametrize("name", ["bert", "gpt2", "vit"])
def test_transformers(name, groups):
    model = architectures.make(name).double()
    data, examples = architectures.batches(name)
    if name == "vit":
        for batch in data:
            batch["pixel_values"] = batch["pixel_values"].double()
    labels = torch.cat([batch["labels"] for batch in data])
    assert_defined(model, data, examples, labels, groups=groups)


def test_long_examples():
    """Many tokens per example take the order of products for which gradients of single
    examples are gathered; few take the other."""
    lengths = [[22, 9, 24], [20, 24]]
    model = architectures.make("bert").double()
    data, examples = architectures.batches("bert", lengths)
    labels = torch.cat([batch["labels"] for batch in data])
    assert_defined(model, data, examples, labels)


def test_both_orders_of_products():
    rows, columns = torch.randn(3, 5, 4).double(), torch.randn(3, 5, 6).double()
    used = torch.ones(3, 5, dtype=torch.bool)
    used[0, 2:] = used[1, 1] = False
    rows = rows * used[..., None]
    vectors = torch.randn(T, 4, 6).double()
    expected = torch.einsum("blo,bli,toi->bt", rows, columns, vectors)
    total = int(used.sum())
    swapped = vectors.transpose(1, 2).contiguous()
    for found in (
        _by_token(rows, columns, used, total, vectors),
        _by_token(columns, rows, used, total, swapped),
        _by_example(rows, columns, used, vectors),
    ):
        assert_close(found, expected, 1e-13)


def test_convolutions():
    torch.manual_seed(1)
    model = Convolutions().double()
    x, labels = torch.randn(5, 2, 6, 6).double(), torch.tensor([0, 2, 1, 1, 0])
    data = [(x[:3], labels[:3]), (x[3:], labels[3:])]
    assert_defined(model, data, [row[None] for row in x], labels)


def test_tied_parameters_add_up():
    torch.manual_seed(1)
    model = Tied().double()
    ids = torch.tensor([[1, 2, 0], [3, 3, 5], [6, 0, 0]])
    labels = torch.tensor([4, 0, 6])
    assert_defined(model, [(ids, labels)], [row[None] for row in ids], labels)


def test_parameter_without_rule():
    """A parametrized weight takes single examples, with a warning, or is refused."""
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    nn.utils.parametrizations.weight_norm(model[0])
    x, labels = torch.randn(4, 4).double(), torch.tensor([0, 2, 1, 1])
    with pytest.warns(UserWarning, match="single example"):
        assert_defined(model, [(x, labels)], [row[None] for row in x], labels)
    with pytest.raises(NotImplementedError, match="original"):
        measure(model, [(x, labels)], unsupported="error")


def test_language_model():
    """The score of a tied language model; the Fisher is of drawn tokens."""
    model = architectures.make("gpt2_lm").double()
    data, _ = architectures.batches("gpt2_lm")
    for batch in data:
        batch["labels"] = batch["input_ids"].masked_fill(
            batch["attention_mask"] == 0, -100
        )
    found = measure(model, data, "causal_lm", "block")
    model.eval()
    expected = torch.zeros(found.columns.size, dtype=torch.float64)
    for batch in data:
        for i in range(len(batch["labels"])):
            ids, labels = batch["input_ids"][i : i + 1], batch["labels"][i, 1:]
            mask = batch["attention_mask"][i : i + 1]
            logits = model(input_ids=ids, attention_mask=mask).logits[0, :-1]
            nll = nn.functional.cross_entropy(logits, labels, reduction="sum")
            expected += projected(model, nll, found.columns)
    assert_close(found.gradient * found.count, expected)
    eigenvalues = torch.linalg.eigvalsh(found.fisher)
    assert eigenvalues.max() > 0
    assert eigenvalues.min() > -1e-12 * eigenvalues.max()


@pytest.mark.parametrize("loss", ["regression", "multilabel"])
def test_values(loss):
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    x = torch.randn(6, 4).double()
    y = torch.randn(6, 3).double()
    if loss == "multilabel":
        y = (y > 0).double()
    found = measure(model, [(x, y)], loss)
    gradient = torch.zeros(found.columns.size, dtype=torch.float64)
    fisher = torch.zeros(found.columns.size, found.columns.size, dtype=torch.float64)
    for row, label in zip(x, y, strict=True):
        z = model(row[None])[0]
        p = z.sigmoid()
        if loss == "multilabel":
            nll = nn.functional.binary_cross_entropy(p, label, reduction="sum")
        else:
            nll = 0.5 * (z - label).square().sum()
        gradient += projected(model, nll, found.columns)
        for k in range(3):
            u = projected(model, z[k], found.columns)
            scale = float((p[k] * (1 - p[k])).detach()) if loss == "multilabel" else 1.0
            fisher += scale * torch.outer(u, u)
    assert_close(found.gradient, gradient / 6)
    assert_close(found.fisher, fisher / 6)


@pytest.mark.slow
def test_any_batch_size():
    model = architectures.make("bert")
    data, examples = architectures.batches("bert")
    labels = torch.cat([batch["labels"] for batch in data])
    singles = [
        example | {"labels": labels[i : i + 1]} for i, example in enumerate(examples)
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        together, alone = measure(model, data), measure(model, singles)
    assert_close(together.gradient, alone.gradient, 1e-4)
    assert_close(together.fisher, alone.fisher, 1e-4)
