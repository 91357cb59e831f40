"""merganser.fisher on modules that use parameters in unusual ways: correct values, with
a warning if they come from single examples."""

import warnings

import merganser
import pytest
import torch
import torch.nn.utils.prune
from fisher_oracle import assert_fishers_close
from torch import nn
from torch.nn import functional


class Classifier(nn.Module):
    """Embeds tokens (B, L), applies `body`, classifies the mean."""

    def __init__(self, body):
        super().__init__()
        self.embedding = nn.Embedding(10, 4)
        self.body = body
        self.head = nn.Linear(4, 2)

    def forward(self, ids):
        return self.head(self.body(self.embedding(ids)).mean(1))


class OneLayer(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4)


class Twice(OneLayer):
    def forward(self, x):
        return self.layer(self.layer(x))


class Functional(OneLayer):
    """Uses a layer's weight without calling the layer."""

    def forward(self, x):
        return functional.linear(x, self.layer.weight)


class FunctionalToo(OneLayer):
    def forward(self, x):
        return functional.linear(self.layer(x), self.layer.weight)


class ByOtherNames(OneLayer):
    """Uses weights in other products, and in parts."""

    def forward(self, x):
        x = x @ self.layer.weight + x @ self.layer.weight.T
        first, second = self.layer.weight.chunk(2)
        return torch.cat([functional.linear(x, first), functional.linear(x, second)], 2)


class OneByOne(OneLayer):
    def forward(self, x):
        first, second = self.layer.weight.chunk(2)
        x = torch.cat([functional.linear(x, first), functional.linear(x, second)], 2)
        return x + self.layer.bias


class Doubled(nn.Linear):
    def forward(self, x):
        return functional.linear(x, 2 * self.weight, self.bias)


class Transposed(OneLayer):
    """Works on (L, B, C), as sequence-first models do."""

    def forward(self, x):
        return self.layer(x.transpose(0, 1)).transpose(0, 1)


class Flattened(OneLayer):
    def forward(self, x):
        return self.layer(x.flatten(0, 1)).view_as(x)


class FlattenedTransposed(OneLayer):
    def forward(self, x):
        y = self.layer(x.transpose(0, 1).reshape(-1, 4))
        return y.view(x.shape[1], x.shape[0], 4).transpose(0, 1)


class Mixing(OneLayer):
    """Mixes examples, like BatchNorm in training. Keeps single examples unchanged."""

    def forward(self, x):
        return self.layer(x - 0.1 * (x.mean(0, keepdim=True) - x))


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.second = nn.Linear(4, 4)
        self.second.weight = self.first.weight

    def forward(self, x):
        return self.second(self.first(x))


class BothWays(nn.Module):
    """Multiplies by a weight and by its transpose."""

    def __init__(self, width):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(width, 4))

    def forward(self, x):
        return functional.linear(x, self.weight).tanh() @ self.weight


class Grouped(nn.Module):
    """Uses one weight in convolutions with one and two groups."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 2, 3))

    def forward(self, x):
        y = functional.conv1d(x.mT, self.weight, padding=1, groups=2).tanh()
        y = functional.conv1d(y[:, :2] + y[:, 2:], self.weight, padding=1)
        return y.mT


class Lookups(nn.Module):
    """Looks up tokens in one table, with several rows for padding."""

    def __init__(self, *padding):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(10, 4))
        self.padding = padding

    def forward(self, ids):
        rows = [
            functional.embedding(ids, self.weight, padding_idx=i) for i in self.padding
        ]
        return torch.cat(rows, 1).tanh()


class TableBothWays(Lookups):
    """Looks up tokens in a table, and multiplies by it and by its transpose."""

    def forward(self, ids):
        x = functional.linear(super().forward(ids), self.weight)
        return x.tanh() @ self.weight


class Scales(nn.Module):
    """Own parameters: scale, shift, positions, a token that all texts share."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.randn(4))
        self.shift = nn.Parameter(torch.randn(4))
        self.positions = nn.Parameter(torch.randn(1, 5, 4))
        self.rows = nn.Parameter(torch.randn(5, 1))
        self.token = nn.Parameter(torch.randn(1, 1, 4))
        self.factor = nn.Parameter(torch.randn(()))

    def forward(self, x):
        x = self.scale * x * self.scale + self.shift + self.positions
        x = x * self.rows * self.factor
        return torch.cat([self.token.expand(len(x), -1, -1), x], 1).tanh()


class AddedTwice(nn.Module):
    def __init__(self):
        super().__init__()
        self.shift = nn.Parameter(torch.randn(4))

    def forward(self, x):
        return torch.add(x, self.shift, alpha=2).tanh()


class ScaledProduct(OneLayer):
    """beta * bias + alpha * x W, with factors that the gradients also have."""

    def __init__(self, **factors):
        super().__init__()
        self.factors = factors

    def forward(self, x):
        rows = x.flatten(0, 1)
        y = torch.addmm(self.layer.bias, rows, self.layer.weight, **self.factors)
        return y.view_as(x).tanh()


class InputChanged(OneLayer):
    """Changes a layer's input after the layer used it."""

    def forward(self, x):
        x = x.detach()
        y = self.layer(x)
        x.mul_(2)
        return y


class Foreign(OneLayer):
    """Has a trainable tensor that is not a parameter, on a separate branch."""

    foreign = torch.ones(4, requires_grad=True)

    def forward(self, x):
        return x + self.layer(x.detach() * self.foreign.to(x.dtype))


class Shared(nn.Module):
    """Looks up positions once for all examples: as (1, L) or (L,)."""

    def __init__(self, shape):
        super().__init__()
        self.positions = nn.Embedding(6, 4)
        self.shape = shape

    def forward(self, x):
        return (x + self.positions(torch.arange(x.shape[1]).view(self.shape))).tanh()


class SharedRepeated(Shared):
    """Fails if a shared embedding is expanded over the examples."""

    def forward(self, x):
        p = self.positions(torch.arange(x.shape[1]).view(self.shape))
        return (x + p.repeat(len(x), 1, 1)).tanh()


class Sometimes(nn.Module):
    """Routes each token to an expert; one gets no token in most examples."""

    def __init__(self):
        super().__init__()
        self.common = nn.Linear(4, 4)
        self.rare = nn.Linear(4, 4)

    def forward(self, x):
        chosen = x[..., 0] > x[..., 0].double().mean((-1), keepdim=True) + 0.6
        y = self.common(x).tanh().clone()
        y[chosen] = self.rare(x[chosen])
        return y


class Gate(torch.autograd.Function):
    @staticmethod
    def forward(context, x, weight):
        context.save_for_backward(x, weight)
        return x * weight

    @staticmethod
    def backward(context, grad):
        x, weight = context.saved_tensors
        return grad * weight, (grad * x).sum((0, 1))


class Custom(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4))

    def forward(self, x):
        return Gate.apply(x, self.weight)


def pruned():
    layer = nn.Linear(4, 4)
    nn.utils.prune.l1_unstructured(layer, "weight", 0.5)
    return layer


# Names in the warning; None: no warning.
BODIES = {
    "twice": (Twice, None),
    "functional": (Functional, None),
    "functional_too": (FunctionalToo, None),
    "by_other_names": (ByOtherNames, "layer.weight"),
    "one_by_one": (OneByOne, None),
    "doubled": (lambda: Doubled(4, 4), "body.weight"),
    "transposed": (Transposed, None),
    "flattened": (Flattened, None),
    "flattened_transposed": (FlattenedTransposed, None),
    "tied": (Tied, None),
    "scales": (Scales, None),
    "foreign": (Foreign, None),
    "added_twice": (AddedTwice, "body.shift"),
    "addmm": (ScaledProduct, None),
    "addmm alpha": (lambda: ScaledProduct(alpha=2), "body.layer.weight"),
    "addmm beta": (lambda: ScaledProduct(beta=0.5), "body.layer.bias"),
    "addmm both": (lambda: ScaledProduct(alpha=2, beta=2), "body.layer.weight"),
    "shared": (lambda: Shared((1, -1)), None),
    "shared_vector": (lambda: Shared(-1), None),
    "shared_repeated": (lambda: SharedRepeated((1, -1)), "body.positions.weight"),
    "sometimes": (Sometimes, "moves or chooses rows of its batches"),
    "custom": (Custom, "body.weight"),
    "both_ways": (lambda: BothWays(4), "body.weight"),
    "both_ways_wide": (lambda: BothWays(5), "body.weight"),
    "grouped": (Grouped, "body.weight"),
    "lookups": (lambda: Lookups(0, 0), None),
    "lookups_padded": (lambda: Lookups(0, None), "body.weight"),
    "lookups_padded_twice": (lambda: Lookups(0, 3), "body.weight"),
    "table_both_ways": (lambda: TableBothWays(None), "body.weight"),
    "max_norm": (lambda: nn.Embedding(10, 4, max_norm=1.0), "body.weight"),
    "weight_norm": (
        lambda: nn.utils.parametrizations.weight_norm(nn.Linear(4, 4)),
        "parametrizations",
    ),
    "pruned": (pruned, "body.weight_orig"),
    "transformer": (
        lambda: nn.TransformerEncoderLayer(4, 2, 8, batch_first=True),
        None,
    ),
    "transformer_sequence_first": (lambda: SequenceFirst(), None),
}


class SequenceFirst(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(4, 2, 8)

    def forward(self, x):
        return self.layer(x.transpose(0, 1)).transpose(0, 1)


class OfIds(nn.Module):
    """Classifies as Classifier does, with a body that takes tokens."""

    def __init__(self, body):
        super().__init__()
        self.body = body
        self.head = nn.Linear(4, 2)

    def forward(self, ids):
        return self.head(self.body(ids).mean(1))


def model_of(name):
    torch.manual_seed(1)
    body = BODIES[name][0]()
    takes_ids = isinstance(body, nn.Embedding | Lookups)
    model = (OfIds if takes_ids else Classifier)(body)
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(1.5)
    return model.eval()


def define(model, examples):
    """The exact Fisher by a loop over single examples, in the model's dtype."""
    parameters = dict(model.named_parameters())
    sums = {name: torch.zeros_like(p) for name, p in parameters.items()}
    for example in examples:
        log_p = model(example)[0].log_softmax(0)
        for score in log_p:
            gradients = torch.autograd.grad(
                score, parameters.values(), retain_graph=True, allow_unused=True
            )
            for total, gradient in zip(sums.values(), gradients, strict=True):
                if gradient is not None:
                    total += score.detach().exp() * gradient**2
    return {name: total / len(examples) for name, total in sums.items()}


@pytest.mark.parametrize(("batch", "length"), [(4, 5), (5, 5), (1, 5), (2, 5), (10, 5)])
@pytest.mark.parametrize("name", BODIES)
def test_any_module(name, batch, length):
    model = model_of(name).double() if name != "weight_norm" else model_of(name)
    ids = torch.randint(0, 10, (12, length))
    expected = define(model, ids.split(1))
    before = [list(vars(module)) for module in model.modules()]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = merganser.fisher(model, ids.split(batch))
    said = " ".join(str(w.message) for w in caught)
    named = BODIES[name][1]
    if named is None:
        assert not said
    elif batch > 1:
        assert named in said
    assert "head.weight" not in said
    # Tolerances as precise as the model: this compares rules, not rounding.
    assert_fishers_close(
        result, expected, rtol=1e-10 if name != "weight_norm" else 1e-4
    )
    assert [list(vars(module)) for module in model.modules()] == before


class TiedTable(nn.Module):
    """A table that is also the output layer, with a row for padding: looked up, that
    row has no gradient; as a class it has one."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(10, 4, padding_idx=0)

    def forward(self, ids):
        x = self.table(ids).tanh().cumsum(1)[:, -1]
        return functional.linear(x, self.table.weight)


@pytest.mark.parametrize("batch", [1, 3, 6])
def test_padding_row_of_a_tied_table(batch):
    model = TiedTable().double()
    with torch.no_grad():
        model.table.weight.normal_()
    ids = torch.randint(0, 10, (6, 5))
    ids[:4, 1] = 0
    result = merganser.fisher(model, ids.split(batch), unsupported="error")
    assert result["table.weight"][0].all()
    assert_fishers_close(result, define(model, ids.split(1)), rtol=1e-10)


def test_input_changed_in_place():
    """As in training, autograd raises, since it lost the gradient."""
    model = Classifier(InputChanged())
    ids = torch.randint(0, 10, (4, 5))
    with (
        pytest.warns(UserWarning, match=r"body\.layer\.weight.*changed in place"),
        pytest.raises(RuntimeError, match="modified by an inplace operation"),
    ):
        merganser.fisher(model, [ids])


def test_examples_that_influence_each_other():
    """Refused: the definition has single examples."""
    model = Classifier(Mixing()).double()
    ids = torch.randint(0, 10, (6, 5))
    with pytest.raises(merganser.InputError, match="the model mixes them"):
        merganser.fisher(model, [ids])
    result = merganser.fisher(model, ids.split(1))
    assert_fishers_close(result, define(model, ids.split(1)), rtol=1e-10)


@pytest.mark.parametrize("name", [n for n, (_, named) in BODIES.items() if named])
def test_refused_on_request(name):
    named = BODIES[name][1]
    model = model_of(name)
    with pytest.raises(NotImplementedError, match=named.replace(".", r"\.")):
        merganser.fisher(model, [torch.randint(0, 10, (4, 5))], unsupported="error")


def test_layers_that_do_not_reach_the_logits():
    """Their Fisher is zero, as the logits do not depend on them."""
    model = Classifier(nn.Identity())
    model.unused = nn.Linear(4, 4)
    result = merganser.fisher(model, [torch.randint(0, 10, (3, 5))])
    assert not result["unused.weight"].any()
    assert result["head.weight"].any()
    with pytest.raises(merganser.InputError, match="no trainable parameter of the mod"):
        merganser.fisher(Detached(), [torch.randn(3, 4)])


class Detached(nn.Linear):
    def __init__(self):
        super().__init__(4, 2)
        self.layer = nn.Linear(4, 2)
        self.requires_grad_(False)
        self.layer.requires_grad_(True)

    def forward(self, x):
        return self.layer(x).detach()


@pytest.mark.parametrize("name", ["twice", "functional_too", "tied", "custom"])
def test_mc_batch_takes_any_model(name):
    model = model_of(name)
    result = merganser.fisher(model, [torch.randint(0, 10, (3, 5))], "mc_batch")
    assert all((f > 0).any() for f in result.values())


def test_frozen_parameters_are_no_obstacle():
    model = Classifier(Custom())
    model.body.requires_grad_(False)
    result = merganser.fisher(
        model, [torch.randint(0, 10, (3, 5))], unsupported="error"
    )
    assert "body.weight" not in result


def test_one_warning_for_all_batches():
    model = Classifier(Custom())
    with pytest.warns(UserWarning) as caught:
        merganser.fisher(model, torch.randint(0, 10, (12, 5)).split(3))
    assert len(caught) == 1
    assert "fisher_any_module" in caught[0].filename


class NoGrad(OneLayer):
    """Uses a view of the weight without gradient."""

    def forward(self, x):
        with torch.no_grad():
            weight = self.layer.weight[:]
        return functional.linear(x, weight) + self.layer.bias


class Kept(OneLayer):
    """Keeps a tensor computed from a parameter in its first forward pass."""

    kept = None

    def forward(self, x):
        if self.kept is None:
            self.kept = self.layer.bias + 1
        return x * self.kept


class Hooked(OneLayer):
    def __init__(self):
        super().__init__()
        self.layer.weight.register_hook(lambda grad: 2 * grad)

    def forward(self, x):
        return self.layer(x)


class Gradient(OneLayer):
    """Computes a gradient in its forward pass."""

    def forward(self, x):
        y = self.layer(x)
        return y + torch.autograd.grad(y.sum(), x, create_graph=True)[0]


def test_views_without_gradient():
    torch.manual_seed(2)
    model = Classifier(NoGrad()).double()
    ids = torch.randint(0, 10, (6, 5))
    result = merganser.fisher(model, [ids])
    assert not result["body.layer.weight"].any()
    assert_fishers_close(result, define(model, ids.split(1)), rtol=1e-10)


def test_hooks_of_parameters():
    torch.manual_seed(2)
    model = Classifier(Hooked()).double()
    ids = torch.randint(0, 10, (6, 5))
    with pytest.warns(UserWarning, match=r"body\.layer\.weight"):
        result = merganser.fisher(model, [ids])
    assert_fishers_close(result, define(model, ids.split(1)), rtol=1e-10)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (Kept(), r"body\.layer\.bias is kept from one forward pass to the next"),
        (Gradient(), "gradient through body.layer.weight, .* in its forward pass"),
    ],
    ids=["kept", "gradient"],
)
def test_what_would_be_wrong_is_an_error(body, said):
    with pytest.raises(merganser.Error, match=said):
        merganser.fisher(Classifier(body), [torch.randint(0, 10, (4, 5))])


class Along(OneLayer):
    """Moves examples in one of many ways, depending on their first tokens."""

    def __init__(self, how):
        super().__init__()
        self.how = how

    def forward(self, x):
        order = x[:, 0, 0].argsort()
        x = self.layer(self.how(x, order)).sin()
        return self.layer(self.how(x, order.argsort()))


MOVES = {
    "index_select": lambda x, order: x[:, 0].index_select(-2, order)[:, None],
    "gather": lambda x, order: x.gather(-3, order[:, None, None].expand_as(x)),
    "minor": lambda x, order: x.transpose(0, 1)[:, order].transpose(0, 1),
    "minor_select": lambda x, order: (
        x.transpose(0, 1).index_select(1, order).transpose(0, 1)
    ),
    "stack": lambda x, order: torch.stack([x[i] for i in order]),
    "one_hot": lambda x, order: (
        functional.one_hot(order, len(x)).to(x.dtype) @ x.flatten(1)
    ).view_as(x),
    "einsum": lambda x, order: torch.einsum(
        "ij,jlc->ilc", functional.one_hot(order, len(x)).to(x.dtype), x
    ),
    "roll": lambda x, order: x.roll(int(order[0]), 0),
    "take": lambda x, order: x.take_along_dim(order[:, None, None], 0),
    "split": lambda x, order: torch.cat([x.split(1)[i] for i in order]),
    "unbind": lambda x, order: torch.stack([x.unbind()[i] for i in order]),
}


@pytest.mark.parametrize("name", MOVES)
def test_moved_examples(name):
    torch.manual_seed(8)
    model = Classifier(Along(MOVES[name])).double()
    ids = torch.randint(0, 10, (8, 5))
    first = model.embedding(ids)[:, 0, 0]
    ids = torch.cat([ids[first.argsort()], ids])  # the first examples are in order
    # Single examples are in order; the uses of a roll do not undo each other.
    if name != "roll":
        torch.testing.assert_close(
            model(ids), torch.cat([model(i) for i in ids.split(1)])
        )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            result = merganser.fisher(model, ids.split(8))
        except merganser.InputError as error:
            assert "mixes" in str(error)
            return
    assert "moves or chooses rows" in str(caught[0].message)
    assert_fishers_close(result, define(model, ids.split(1)), rtol=1e-9)


def test_arguments_without_a_rule():
    """Arguments such as out=, with tensors that are not parameters."""

    class Out(OneLayer):
        def forward(self, x):
            table = torch.empty(4)
            torch.mul(torch.ones(4), torch.full((4,), 2.0), out=table)
            return self.layer(x) * table * self.layer.bias[0] * self.layer.bias[1]

    torch.manual_seed(3)
    model = Classifier(Out())
    ids = torch.randint(0, 10, (4, 5))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = merganser.fisher(model, [ids])
    assert_fishers_close(result, define(model, ids.split(1)), rtol=1e-4)
