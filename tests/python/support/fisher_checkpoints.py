"""Fishers that stop halfway and are resumed from the file of their sums."""

import warnings

import merganser
import pytest
import torch
from torch import nn

SIZES = (3, 1, 4, 2, 4)
COUNT = sum(SIZES)


class Recurrent(nn.Module):
    """Has parameters with and without rules."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(9, 4)
        self.cell = nn.LSTM(4, 4, batch_first=True)
        self.head = nn.Linear(4, 3)

    def forward(self, ids):
        return self.head(self.cell(self.table(ids))[0].mean(1))


def plain():
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(5, 6), nn.LayerNorm(6), nn.Linear(6, 3))


def recurrent():
    torch.manual_seed(3)
    return Recurrent()


def data_of(model, seed=1):
    generator = torch.Generator().manual_seed(seed)
    if isinstance(model, Recurrent):
        inputs = torch.randint(0, 9, (COUNT, 4), generator=generator)
    else:
        inputs = torch.randn(COUNT, 5, generator=generator)
    labels = torch.randint(0, 3, (COUNT,), generator=generator)
    return list(zip(inputs.split(SIZES), labels.split(SIZES), strict=True))


def run(model, data, *args, **options):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "no rule gives")
        return merganser.fisher(model, data, *args, **options)


class Stopped(Exception):
    pass


def stop_after(batches):
    seen = []

    def progress(*state):
        seen.append(state)
        if len(seen) == batches:
            raise Stopped

    return progress


def broken(data):
    yield from data
    raise Stopped


def stopped(model, data, batches, path, *args, **options):
    progress = stop_after(batches)
    with pytest.raises(Stopped):
        run(model, data, *args, checkpoint=path, progress=progress, **options)


def assert_identical(a, b):
    assert set(a) == set(b)
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert (a.num_examples, a.num_examples_used) == (
        b.num_examples,
        b.num_examples_used,
    )
