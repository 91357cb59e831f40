"""The forms of data that merganser.fisher accepts."""

import merganser
import pytest
import torch
from fisher_oracle import assert_fishers_close, define_fisher
from merganser import _C
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

COUNT = 7
X = torch.linspace(0, 9, COUNT * 4).sin().view(COUNT, 4)
Y = torch.arange(COUNT).remainder(3)


class Rows(torch.utils.data.Dataset):
    """A map-style data set of dicts."""

    def __len__(self):
        return COUNT

    def __getitem__(self, i):
        if not 0 <= i < COUNT:
            raise IndexError
        return {"input": X[i], "labels": Y[i]}


class Stream(IterableDataset):
    def __iter__(self):
        return (Rows()[i] for i in range(COUNT))


def plain():
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))


def pairs(size=3):
    return list(zip(X.split(size), Y.split(size), strict=True))


def dicts(size=3):
    return [{"input": x, "labels": y} for x, y in pairs(size)]


def collate(rows):
    return {key: torch.stack([row[key] for row in rows]) for key in rows[0]}


FORMS = {
    "pairs": pairs,
    "tuple": lambda: tuple(pairs()),
    "lists": lambda: [list(pair) for pair in pairs()],
    "dicts": dicts,
    "pairs of dicts": lambda: [({"input": x}, y) for x, y in pairs()],
    "int32 labels": lambda: [(x, y.int()) for x, y in pairs()],
    "generator": lambda: (pair for pair in pairs()),
    "DataLoader": lambda: DataLoader(TensorDataset(X, Y), 3),
    "DataLoader of dicts": lambda: DataLoader(Rows(), 2),
    "DataLoader of batches": lambda: DataLoader(pairs(), batch_size=None),
    "DataLoader of a stream": lambda: DataLoader(Stream(), 4),
    "DataLoader with a collator": lambda: DataLoader(Rows(), 4, collate_fn=collate),
    "empty batches": lambda: [*pairs()[:2], (X[:0], Y[:0]), *pairs()[2:]],
    "empty first": lambda: [(X[:0], Y[:0]), *pairs()],
}
COLLATED = {"map-style": Rows, "stream": Stream, "list": lambda: list(Rows())}


@pytest.mark.parametrize("estimator", ["mc", "empirical"])
@pytest.mark.parametrize("name", FORMS)
def test_forms(name, estimator):
    expected = merganser.fisher(plain(), [(X, Y)], estimator)
    result = merganser.fisher(plain(), FORMS[name](), estimator)
    assert_fishers_close(result, expected)
    assert (result.num_examples, result.num_examples_used) == (COUNT, COUNT)


def test_tensors():
    expected = define_fisher(plain(), X.split(1), lambda i, p: p)
    assert_fishers_close(merganser.fisher(plain(), X.split(3)), expected)


@pytest.mark.parametrize("name", COLLATED)
def test_collator(name):
    expected = merganser.fisher(plain(), [(X, Y)], "empirical")
    data = COLLATED[name]()
    result = merganser.fisher(
        plain(), data, "empirical", collator=collate, batch_size=2
    )
    assert_fishers_close(result, expected)
    assert result.num_examples == COUNT


@pytest.mark.parametrize(
    "data",
    [
        lambda: DataLoader(TensorDataset(X, Y), 4, drop_last=True),
        lambda: DataLoader(Rows(), batch_sampler=[[0, 1, 2], [3]]),
    ],
)
def test_examples_that_a_loader_leaves_out(data):
    """They do not belong to the data."""
    result = merganser.fisher(plain(), data())
    assert (result.num_examples, result.num_examples_used) == (4, 4)
    expected = define_fisher(plain(), X[:4].split(1), lambda i, p: p)
    assert_fishers_close(result, expected)


# Forms without positions, which give their first examples.
FIRST = {"generator", "DataLoader of batches", "DataLoader of a stream", "stream"}


def of_subset(chosen, estimator, seed):
    """The Fisher of these examples, with their positions in the whole data set."""
    chosen = torch.tensor(chosen)
    batch = {"input": X[chosen], "labels": Y[chosen], "index": chosen}
    return merganser.fisher(plain(), [batch], estimator, seed=seed)


@pytest.mark.parametrize("limit", [1, 3, 4, COUNT, 100])
@pytest.mark.parametrize("name", [*FORMS, *COLLATED])
def test_limit(name, limit):
    used = min(limit, COUNT)
    for estimator, seed in (("mc", 5), ("empirical", 6)):
        chosen = range(used) if name in FIRST else _C.draw_subset(COUNT, limit, seed)
        data = {"data": FORMS[name]()} if name in FORMS else {"data": COLLATED[name]()}
        if name in COLLATED:
            data |= {"collator": collate, "batch_size": 2}
        result = merganser.fisher(
            plain(),
            **data,
            estimator=estimator,
            limit=limit,
            seed=seed,
            num_examples=50,
        )
        assert_fishers_close(result, of_subset(list(chosen), estimator, seed))
        assert (result.num_examples, result.num_examples_used) == (50, used)


def test_limit_draws_a_subset():
    """Data sorted by label give every label."""
    drawn = [tuple(_C.draw_subset(COUNT, 4, seed)) for seed in range(300)]
    assert all(list(d) == sorted(set(d)) and len(d) == 4 for d in drawn)
    assert len(set(drawn)) == 35  # all of them
    counts = torch.tensor(drawn).flatten().bincount(minlength=COUNT)
    assert (counts - 300 * 4 / COUNT).abs().max() < 4 * (300 * 12 / 49) ** 0.5


def test_limit_of_a_shuffled_loader_and_of_workers():
    data = TensorDataset(X, torch.arange(COUNT))
    seen = []

    class Seeing(nn.Sequential):
        def forward(self, x):
            seen.extend(x.detach().tolist())
            return super().forward(x)

    loader = DataLoader(data, 4, shuffle=True, num_workers=1)
    merganser.fisher(Seeing(*plain()), loader, "mc_batch", limit=5)
    assert len({tuple(x) for x in seen}) == len(seen) == 5
    assert all(x in X.tolist() for x in seen)


def test_limit_of_data_of_unknown_length():
    chosen = _C.draw_subset(COUNT, 4, 0)
    expected = define_fisher(plain(), X[chosen].split(1), lambda i, p: p)
    result = merganser.fisher(plain(), pairs(), limit=4)
    assert (result.num_examples, result.num_examples_used) == (COUNT, 4)
    assert_fishers_close(result, expected)
    for name in ("generator", "DataLoader of batches", "DataLoader of a stream"):
        with pytest.raises(merganser.InputError, match="need num_examples"):
            merganser.fisher(plain(), FORMS[name](), limit=4)


def test_limit_reads_no_further():
    def data():
        yield from pairs()[:2]
        raise AssertionError("read on")

    merganser.fisher(plain(), data(), limit=5, num_examples=COUNT)
    merganser.fisher(plain(), data(), limit=6, num_examples=COUNT)


@pytest.mark.parametrize("kind", [torch.int32, torch.int64, torch.uint8])
def test_index(kind):
    """Sampled labels depend on an example's own index, not on its position."""
    expected = merganser.fisher(plain(), [X], "mc")
    order = torch.randperm(COUNT)
    shuffled = [
        {"input": X[i], "index": i.to(kind)} for i in (order[:2], order[2:3], order[3:])
    ]
    assert_fishers_close(merganser.fisher(plain(), shuffled, "mc"), expected)
    counted = merganser.fisher(plain(), [X[order]], "mc")
    with pytest.raises(AssertionError):
        assert_fishers_close(counted, expected)


class Nested(nn.Module):
    """Takes a dict of a tuple, a table without a row per example, and a name."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(4, 5)
        self.second = nn.Linear(4, 3)

    def forward(self, table, parts, kind="tanh"):
        a, rest = parts["pair"]
        h = getattr(torch, kind)(self.first(a)) @ table
        return h + self.second(rest["b"])


TABLE = torch.linspace(-1, 1, 15).view(5, 3)


def test_nested_inputs_and_inputs_of_all_examples():
    model = Nested()

    def inputs(rows):
        nested = {"pair": (X[rows], {"b": X[rows].flip(1)})}
        return {"parts": nested, "kind": "sin", "labels": Y[rows], "table": TABLE}

    parts = torch.arange(COUNT).split(4)  # none has as many as the table has rows
    result = merganser.fisher(model, [inputs(rows) for rows in parts])

    def forward(i):
        without = {k: v for k, v in inputs(slice(i, i + 1)).items() if k != "labels"}
        return model(**without)[0].log_softmax(0)

    parameters = dict(model.named_parameters())
    expected = {name: torch.zeros_like(p) for name, p in parameters.items()}
    for i in range(COUNT):
        for score in forward(i):
            gradients = torch.autograd.grad(
                score, parameters.values(), retain_graph=True
            )
            for total, gradient in zip(expected.values(), gradients, strict=True):
                total += score.detach().exp() * gradient**2 / COUNT
    assert_fishers_close(result, expected)


class Looked(nn.Module):
    """Takes a table of all examples, followed by tokens."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(4, 3)

    def forward(self, input_ids, a_table):
        return self.head(self.features(input_ids, a_table))

    def features(self, input_ids, a_table):
        return (input_ids - 3.0).to(a_table.dtype).mean(1, keepdim=True) * a_table.mean(
            0
        )


def test_tokens_tell_how_many_examples_there_are():
    ids = torch.randint(0, COUNT, (5, 3))
    data = [{"a_table": X, "input_ids": part} for part in ids.split(4)]
    model = Looked()
    result = merganser.fisher(model, data)
    expected = define_fisher(
        model.head, model.features(ids, X).split(1), lambda i, p: p
    )
    assert_fishers_close(
        {n.removeprefix("head."): f for n, f in result.items()}, expected
    )


def test_tensor_of_all_examples_as_long_as_the_batch():
    """It looks like one with a row per example, but is detected."""
    ids = torch.randint(0, COUNT, (COUNT, 3))
    data = [{"input_ids": ids, "a_table": X}]
    with pytest.raises(
        merganser.InputError, match="happens to have the length of the batch"
    ):
        merganser.fisher(Looked(), data)


def test_collator_beside_a_loader():
    with pytest.raises(merganser.InputError, match="own collate_fn"):
        merganser.fisher(plain(), DataLoader(Rows(), 2), collator=collate)


REFUSED = {
    "another tensor first": ([{"table": TABLE, "input": X, "labels": Y}], "of 5 rows"),
    "nothing": ([], "no examples"),
    "only empty batches": ([(X[:0], Y[:0])], "no examples"),
    "one tensor": (X, "not Tensor: pass a single batch as a list of one"),
    "one dict": ({"input": X}, "not dict: pass a single batch as a list of one"),
    "None": (None, "not NoneType"),
    "a model's file": ("data.csv", "not str"),
    "a batch of strings": (["a", "b"], "not str"),
    "three tensors": ([(X, X, Y)], "a pair"),
    "lists": ([{"input": X.tolist()}], "return_tensors='pt'"),
    "labels twice": ([({"input": X, "labels": Y}, Y)], "labels twice"),
    "index of floats": ([{"input": X, "index": X[:, 0]}], "index must be.*float32"),
    "index of 3": ([{"input": X, "index": Y[:3]}], "index must be.*7 integers"),
    "index (B, 1)": ([{"input": X, "index": Y[:, None]}], r"index .*shape \(7, 1\)"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name):
    data, message = REFUSED[name]
    with pytest.raises(merganser.InputError, match=message) as caught:
        merganser.fisher(plain(), data, "mc")
    assert "\n" not in str(caught.value)
