"""Models whose later batches differ from the probed examples: the values are correct,
or an error is raised."""

import warnings

import merganser
import pytest
import torch
from fisher_oracle import assert_fishers_close, define_fisher
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence


class Model(nn.Module):
    """Tokens (B, L, 4), a head on the sum over those that are not zero."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        mask = x.abs().sum(-1) > 0
        y = self.body(x, mask)
        return self.head((y * mask[..., None]).sum(1).tanh())


class Packed(Model):
    """Removes padding from the layer's rows, like models for flash attention."""

    def body(self, x, mask):
        y = torch.zeros_like(x)
        y[mask] = self.layer(x[mask]).sin()
        return y


class Experts(Model):
    """Routes every token to one of two layers, as in mixtures of experts."""

    def __init__(self):
        super().__init__()
        self.other = nn.Linear(4, 4)

    def body(self, x, mask):
        y = torch.zeros_like(x)
        first = x[..., 0] < 1
        y[first] = self.layer(x[first]).sin()
        y[~first] = self.other(x[~first]).cos()
        return y


class Sorted(Model):
    """Sorts examples by decreasing length and back; uses the layer in both orders."""

    def body(self, x, mask):
        order = mask.sum(1).argsort(descending=True, stable=True)
        y = self.layer(x[order]).sin()[order.argsort()]
        return self.layer(y)


class TimeMajorRows(Model):
    """torch's packed sequences: the first tokens of all examples, the second, ..."""

    def body(self, x, mask):
        packed = pack_padded_sequence(
            x, mask.sum(1), batch_first=True, enforce_sorted=False
        )
        packed = packed._replace(data=self.layer(packed.data).sin())
        return pad_packed_sequence(packed, True, total_length=x.shape[1])[0]


class Chosen(Model):
    """Uses the layer for long batches only."""

    def body(self, x, mask):
        return self.layer(x).sin() if x.shape[1] > 3 else x


class Transposing(Model):
    """Uses (B, L) or (L, B) depending on the length; both have the same rows."""

    def body(self, x, mask):
        if x.shape[1] > 3:
            return self.layer(x.transpose(0, 1)).sin().transpose(0, 1)
        return self.layer(x).sin()


def texts(lengths, first=0.0):
    torch.manual_seed(sum(lengths))
    x = torch.zeros(len(lengths), max(lengths), 4)
    for row, length in zip(x, lengths, strict=True):
        row[:length] = torch.randn(length, 4)
        row[:length, 0] = first
    return x


EQUAL = [texts([3, 3, 3, 3])]
CASES = {
    "packed": (Packed, [*EQUAL, texts([5, 1, 4, 2])]),
    "packed, not divisible": (Packed, [*EQUAL, texts([5, 1, 4, 1])]),
    "experts": (Experts, [*EQUAL, texts([2, 2, 2, 2], 2.0)]),
    "experts of some": (
        Experts,
        [*EQUAL, torch.cat([texts([4, 4], 2.0), texts([4, 4])])],
    ),
    "sorted": (Sorted, [*EQUAL, texts([1, 4, 2, 3])]),
    "time major": (TimeMajorRows, [*EQUAL, texts([5, 1, 4, 2])]),
    "used later": (Chosen, [*EQUAL, texts([4, 2, 4, 1])]),
    "transposed later": (Transposing, [*EQUAL, texts([4, 2, 4, 1])]),
}


@pytest.mark.parametrize("name", CASES)
def test_later_batches(name):
    make, batches = CASES[name]
    torch.manual_seed(4)
    model = make()
    examples = []
    for x in batches:
        for row in x:
            # Cut to its own length, unless the model uses the length of the batch.
            length = int((row.abs().sum(-1) > 0).sum())
            kept = len(row) if make in (Chosen, Transposing) else length
            examples.append(row[None, :kept])
    expected = define_fisher(model, examples, lambda i, p: p)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "no rule gives")
        warnings.filterwarnings("ignore", "the model chooses rows")
        try:
            result = merganser.fisher(model, batches)
        except merganser.Error as error:
            assert "batch" in str(error)
            assert "\n" not in str(error)
            return
    assert_fishers_close(result, expected)
