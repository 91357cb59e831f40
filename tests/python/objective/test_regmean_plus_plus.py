"""merganser.regmean_plus_plus against the definition, one text at a time."""

import copy

import merganser
import pytest
import tiny_models
import torch
from gram_oracle import gram_sums, padded, texts
from torch import nn

LENGTHS = ((7, 3, 5, 1), (6, 2, 4), (3, 8))
BERT_LAYERS = (
    "bert.embeddings",
    "bert.encoder.layer.0",
    "bert.encoder.layer.1",
    "bert.pooler",
    "classifier",
)


def berts(count=3):
    models = []
    for seed in range(count):
        torch.manual_seed(seed)
        models.append(tiny_models.bert().double())
    return models


def bert_data(size):
    sets = [texts(lengths, seed) for seed, lengths in enumerate(LENGTHS)]
    return [
        [padded(rows[i : i + size]) for i in range(0, len(rows), size)] for rows in sets
    ]


def solution(weights, grams, w, off_diagonal, ridge):
    scaled = []
    for g in grams:
        scaled.append(off_diagonal * g)
        scaled[-1].diagonal().copy_(g.diagonal())
    matrix = sum(a * g for a, g in zip(w, scaled, strict=True))
    extra = ridge * matrix.diagonal().mean() * torch.eye(len(matrix)).double()
    top = sum(
        a * x @ (g + extra / sum(w)) for a, x, g in zip(w, weights, scaled, strict=True)
    )
    return top @ torch.linalg.inv(matrix + extra)


def definition(experts, data, layers, w, off_diagonal=0.9, ridge=1e-4):
    """data: single examples of each expert. The layers are given by hand."""
    experts = [copy.deepcopy(model).eval() for model in experts]
    merged = {}
    for layer in layers:
        grams = []
        for model, singles in zip(experts, data, strict=True):
            model = copy.deepcopy(model)
            model.load_state_dict(merged, strict=False)
            grams.append(gram_sums(model, singles))
        states = [model.state_dict() for model in experts]
        found = {}
        for name in states[0]:
            if not name.startswith(layer):
                continue
            tensors = [state[name] for state in states]
            if name in grams[0]:
                own = [g[name] for g in grams]
                found[name] = solution(tensors, own, w, off_diagonal, ridge)
            else:
                pairs = zip(w, tensors, strict=True)
                found[name] = sum(a * x for a, x in pairs) / sum(w)
        merged |= found
    return merged


def assert_equal(found, expected, error=1e-9):
    assert found.keys() == expected.keys()
    for name, x in expected.items():
        assert (found[name] - x).norm() <= error * x.norm(), name


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize(
    "options", [{}, {"weights": [0.5, 2, 1], "off_diagonal": 0.7, "ridge": 0.01}]
)
def test_against_the_definition(size, options):
    experts = berts()
    before = copy.deepcopy(experts[0].state_dict())
    found = merganser.regmean_plus_plus(experts, bert_data(size), **options)
    singles = [
        [padded([row]) for row in texts(n, seed)] for seed, n in enumerate(LENGTHS)
    ]
    w = options.get("weights", [1, 1, 1])
    rest = {key: value for key, value in options.items() if key != "weights"}
    assert_equal(found, definition(experts, singles, BERT_LAYERS, w, **rest))
    after = experts[0].state_dict()
    assert all(torch.equal(after[name], x) for name, x in before.items())


class Stack(nn.Module):
    """Uses its layers in another order than it registers them."""

    def __init__(self, names):
        super().__init__()
        self.names = names
        for name in sorted(names):
            self.add_module(name, nn.Linear(4, 4).double())

    def forward(self, x):
        for name in self.names:
            x = torch.tanh(getattr(self, name)(x))
        return x


def stacks(names, count=2):
    models = []
    for seed in range(count):
        torch.manual_seed(seed)
        models.append(Stack(names))
    return models


def rows(count=2, size=9):
    draw = torch.Generator().manual_seed(7)
    return [torch.randn(size, 4, generator=draw).double() for _ in range(count)]


def test_num_examples_scale_the_gram_matrices():
    """9 examples that count as 18 or 27 are as good as each of them twice or thrice."""
    experts, data = stacks(["a", "b"]), rows()
    found = merganser.regmean_plus_plus(
        experts, [[x] for x in data], num_examples=[18, 27]
    )
    repeated = [[*x.split(1)] * n for x, n in zip(data, (2, 3), strict=True)]
    assert_equal(found, definition(experts, repeated, "ab", [1, 1]))


def test_layers_are_merged_in_the_order_of_use():
    experts, data = stacks(["c", "a", "b"]), rows()
    found = merganser.regmean_plus_plus(experts, [list(x.split(4)) for x in data])
    expected = definition(experts, [list(x.split(1)) for x in data], "cab", [1, 1])
    assert_equal(found, expected)
    other = definition(experts, [list(x.split(1)) for x in data], "abc", [1, 1])
    assert (other["a.weight"] - expected["a.weight"]).norm() > 1e-3


def test_one_layer_is_regmean():
    experts, data = stacks(["a"]), rows()
    grams = [merganser.gram(m, [x]) for m, x in zip(experts, data, strict=True)]
    expected = merganser.merge(None, experts, method="regmean", grams=grams)
    found = merganser.regmean_plus_plus(experts, [[x] for x in data])
    assert all(torch.equal(found[name], x) for name, x in expected.items())


def test_equal_experts_stay():
    experts = stacks(["a", "b"], 1) * 2
    found = merganser.regmean_plus_plus(experts, [[x] for x in rows()])
    assert_equal(found, dict(experts[0].state_dict()))


class WithHeads(nn.Module):
    """A head for each task, and a table tied to an output layer."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(6, 4).double()
        self.body = nn.Linear(4, 4).double()
        self.out = nn.Linear(4, 6, bias=False).double()
        self.out.weight = self.table.weight
        self.heads = nn.ModuleList([nn.Linear(6, 2 + k).double() for k in range(2)])
        self.unused = nn.Linear(3, 3).double()

    def forward(self, x, task):
        return self.heads[task](torch.tanh(self.out(self.body(self.table(x)))))


def test_tied_unused_and_task_specific_tensors():
    torch.manual_seed(0)
    experts = [WithHeads(), WithHeads()]
    tokens = torch.tensor([[0, 1, 2, 3], [4, 4, 5, 1]])
    data = [[{"x": x, "task": k}] for k, x in enumerate(tokens)]
    with pytest.warns(UserWarning, match="no Gram matrices for table.weight"):
        found = merganser.regmean_plus_plus(experts, data)
    mean = {
        name: (x + experts[1].state_dict()[name]) / 2
        for name, x in experts[0].state_dict().items()
    }
    assert found.keys() == mean.keys()
    averaged = {name for name, x in mean.items() if torch.allclose(found[name], x)}
    assert found.keys() - averaged == {"body.weight"}
    assert torch.equal(found["table.weight"], found["out.weight"])


def test_models_and_data_of_every_kind(tmp_path):
    """State dicts, iterators and a progress function; a limit takes the same subset."""
    experts, data = stacks(["a", "b"]), rows()
    lists = [list(x.split(2)) for x in data]
    expected = merganser.regmean_plus_plus(experts, lists)
    calls = []
    found = merganser.regmean_plus_plus(
        [experts[0].state_dict(), experts[1]],
        [iter(batches) for batches in lists],
        progress=lambda *call: calls.append(call),
    )
    assert all(torch.equal(found[name], x) for name, x in expected.items())
    texts = [text for _, _, text in calls]
    assert list(dict.fromkeys(texts)) == [
        f"{layer}, experts[{t}]" for layer in "ab" for t in range(2)
    ]
    assert [done for done, _, _ in calls[:5]] == [2, 4, 6, 8, 9]
    limited = merganser.regmean_plus_plus(experts, lists, limit=3, seed=4)
    chosen = [x[merganser._C.draw_subset(9, 3, 4)] for x in data]
    own = merganser.regmean_plus_plus(experts, [[x] for x in chosen])
    assert_equal(limited, own)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"experts": "state dicts"}, "an expert must be a module, which runs with"),
        ({"experts": []}, "an expert must be a module"),
        ({"data": [[torch.ones(1, 4).double()]]}, "data must have one item per expert"),
        ({"data": [[], []]}, r"data\[0\] has no examples"),
        ({"weights": [1, 0]}, "weights must be finite numbers, positive"),
        ({"off_diagonal": 2}, "off_diagonal"),
        ({"ridge": -1}, "ridge"),
        ({"dtype": torch.float64}, "dtype must be None"),
    ],
)
def test_refusals(change, message):
    arguments = {"experts": stacks(["a", "b"]), "data": [[x] for x in rows()]}
    arguments |= change
    if arguments["experts"] == "state dicts":
        arguments["experts"] = [m.state_dict() for m in stacks(["a", "b"])]
    with pytest.raises(merganser.InputError, match=message):
        merganser.regmean_plus_plus(**arguments)


def test_values_that_are_not_finite():
    experts, data = stacks(["a", "b"]), [[x] for x in rows()]
    data[1] = [torch.full((2, 4), torch.inf).double()]
    with pytest.raises(
        merganser.Error, match=r"Gram matrix of a\.weight is not finite"
    ):
        merganser.regmean_plus_plus(experts, data)
