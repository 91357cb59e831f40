"""Fishers, Gram matrices and subspaces that several processes compute together."""

import copy
import warnings

import merganser
import torch
from fisher_checkpoints import Recurrent
from tiny_models import batch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

SIZES = (3, 1, 4, 2, 4, 5, 3)


def plain(dtype=torch.float64):
    torch.manual_seed(3)
    layers = nn.Linear(5, 6), nn.LayerNorm(6), nn.Tanh(), nn.Linear(6, 3)
    return nn.Sequential(*layers).to(dtype)


def moved(model, seed):
    """Another model near to this one."""
    generator = torch.Generator().manual_seed(seed)
    model = copy.deepcopy(model)
    with torch.no_grad():
        for p in model.parameters():
            p += 0.3 * torch.randn(p.shape, generator=generator, dtype=p.dtype)
    return model


class Encoder(nn.Module):
    """Reads padded texts."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.table = nn.Embedding(43, 6)
        self.inner = nn.Linear(6, 6)
        self.head = nn.Linear(6, 3)

    def forward(self, input_ids, attention_mask):
        mask = attention_mask[..., None]
        x = self.inner(self.table(input_ids)).tanh() * mask
        return self.head(x.sum(1) / mask.sum(1))


class Tied(nn.Module):
    """A table that is also the head: no Gram matrix."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.table = nn.Embedding(9, 4)
        self.inner = nn.Linear(4, 4)
        self.head = nn.Linear(4, 9, bias=False)
        self.head.weight = self.table.weight

    def forward(self, ids):
        return self.head(self.inner(self.table(ids))).mean(1)


def vectors(sizes=SIZES, dtype=torch.float64, seed=1):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(sum(sizes), 5, generator=generator, dtype=dtype)
    y = torch.randint(0, 3, (sum(sizes),), generator=generator)
    return list(zip(x.split(sizes), y.split(sizes), strict=True))


def tokens():
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(0, 9, (9, 4), generator=generator)
    labels = torch.randint(0, 3, (9,), generator=generator)
    return DataLoader(TensorDataset(ids, labels), 2)


def texts():
    """Padded batches; the later ones have more padding."""
    generator = torch.Generator().manual_seed(5)
    lengths = [[7, 7, 7], [4, 7], [2, 6, 3], [9], [5, 5]]
    return [batch(each, generator=generator) for each in lengths]


def diagonal(f):
    return f.diagonal, (f.num_examples, f.num_examples_used)


def fishers(group):
    """Values by case: tensors by name, and numbers that must be equal."""
    options = {"process_group": group}
    for estimator in merganser.fisher.__globals__["ESTIMATORS"]:
        more = {"samples": 2} if estimator.startswith("mc") else {}
        yield (
            estimator,
            diagonal(
                merganser.fisher(plain(), vectors(), estimator, **more, **options)
            ),
        )
    half = plain(torch.float32), vectors(dtype=torch.float32)
    yield "float32", diagonal(merganser.fisher(*half, "mc", **options))
    yield "texts", diagonal(merganser.fisher(Encoder(), texts(), "mc", **options))
    data = DataLoader(TensorDataset(*map(torch.cat, zip(*vectors(), strict=True))), 2)
    for name, sampled in {
        "loader": (data, {}),
        "list": (vectors(), {}),
        "generator": (iter(vectors()), {"num_examples": 30}),
    }.items():
        found = merganser.fisher(plain(), sampled[0], limit=9, **sampled[1], **options)
        yield f"limit of a {name}", diagonal(found)
    found = merganser.fisher(Recurrent().eval(), tokens(), "empirical", **options)
    yield "single examples", diagonal(found)
    yield "one batch", diagonal(merganser.fisher(plain(), vectors((4,)), **options))
    found = merganser.fisher(
        moved(plain(), 1), vectors(), base=plain(), base_data=vectors((2, 3)), **options
    )
    estimates = [
        torch.tensor([e.slope.value, e.slope.standard_error])
        + torch.tensor([e.curvature.value, e.curvature.standard_error])
        for e in (found.task_vector.total, *(x for _, x in found.task_vector.groups))
    ]
    numbers = (
        found.task_vector.num_examples_used,
        found.task_vector.base_num_examples_used,
    )
    yield "task vector", ({"estimates": torch.stack(estimates).double()}, numbers)


def grams(group):
    for name, model, data in (
        ("vectors", plain(), vectors()),
        ("texts", Encoder(), texts()),
        ("one batch of texts", Encoder(), texts()[1:2]),
        ("tied", Tied(), [next(iter(tokens()))]),
    ):
        found = merganser.gram(model, data, process_group=group)
        numbers = found.num_examples, found.num_examples_used
        yield f"gram of {name}", (found.matrices, numbers)


def subspaces(group):
    base = plain()
    for name, more in {
        "all": {},
        "limit": {"limit": 10},
        "one batch": {"data": [vectors(), vectors((7,), seed=3)]},
    }.items():
        content = merganser.subspace_fisher(
            base,
            [moved(base, 1), moved(base, 2)],
            base_data=vectors((4, 4, 3), seed=4),
            process_group=group,
            **{"data": [vectors(), vectors((5, 3, 2), seed=3)], **more},
        ).content
        tensors, counts = {}, []
        for i, loss in enumerate((content.base, *content.experts)):
            tensors[f"fisher {i}"] = torch.as_tensor(loss.fisher)
            if i:
                tensors[f"gradient {i}"] = torch.as_tensor(loss.gradient)
            counts += [*loss.counts, loss.num_examples]
        yield f"subspace of {name}", (tensors, tuple(counts))


def found(group):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "no rule gives|limit takes the first")
        warnings.filterwarnings("ignore", "no Gram matrices")
        torch.manual_seed(0)
        return {**dict(fishers(group)), **dict(grams(group)), **dict(subspaces(group))}
