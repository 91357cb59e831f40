"""Gram matrices of linear layers' inputs, against a loop over single examples."""

import copy

import architectures
import merganser
import pytest
import tiny_models
import torch
from gram_oracle import gram_sums, padded, texts
from torch import nn

pytestmark = pytest.mark.filterwarnings("ignore:no Gram matrices")
LENGTHS = (7, 3, 5, 1, 6)


def batches(size):
    """The texts of LENGTHS, padded within batches of `size`."""
    rows = texts(LENGTHS, 0)
    for start in range(0, len(rows), size):
        yield padded(rows[start : start + size])


def definition(model):
    """Inputs of nn.Linear modules by hooks, one text at a time, in float64."""
    sums = gram_sums(copy.deepcopy(model).double().eval(), batches(1))
    return {name: total / len(LENGTHS) for name, total in sums.items()}


@pytest.mark.parametrize("size", [1, 2, 5])
def test_against_the_definition(size):
    model = tiny_models.bert().train()
    expected = definition(model)
    found = merganser.gram(model, list(batches(size)))
    assert model.training
    assert found.keys() == expected.keys()
    assert found.num_examples == found.num_examples_used == len(LENGTHS)
    for name, matrix in expected.items():
        error = (found[name] - matrix).norm() / matrix.norm()
        assert found[name].dtype == torch.float32 and error < 1e-6, name


def test_autocast():
    model = tiny_models.bert()
    expected = definition(model)
    found = merganser.gram(model, list(batches(2)), dtype=torch.bfloat16)
    for name, matrix in expected.items():
        assert found[name].dtype == torch.float32
        assert (found[name] - matrix).norm() / matrix.norm() < 0.02, name


@pytest.mark.parametrize("number", [None, 70])
def test_limit(number):
    """The mean over the subset that the seed draws; N is that of the data."""
    x, model = torch.randn(7, 4), nn.Sequential(nn.Linear(4, 3))
    data = list(x.split(3))
    found = merganser.gram(model, data, limit=4, seed=8, num_examples=number)
    chosen = x[merganser._C.draw_subset(7, 4, 8)]
    assert not torch.equal(chosen, x[:4])
    torch.testing.assert_close(found["0.weight"], chosen.T @ chosen / 4)
    assert (found.num_examples, found.num_examples_used) == (number or 7, 4)
    first = merganser.gram(model, iter(data), limit=4, num_examples=number or 9)
    torch.testing.assert_close(first["0.weight"], x[:4].T @ x[:4] / 4)


def test_file(tmp_path):
    found = merganser.gram(
        tiny_models.bert(), list(batches(2)), limit=3, num_examples=70
    )
    assert found.num_examples_used == 3
    found.save(tmp_path / "gram.safetensors")
    back = merganser.GramResult.load(tmp_path / "gram.safetensors")
    assert back.num_examples == 70 and back.num_examples_used == 3
    assert all(torch.equal(back[name], found[name]) for name in found)
    assert repr(back) == f"GramResult(3 of 70 examples, {len(found)} matrices)"
    fisher = merganser.fisher(tiny_models.bert(), list(batches(2)))
    fisher.save(tmp_path / "fisher.safetensors")
    with pytest.raises(
        merganser.InputError, match="contains Gram matrices; expected a Fisher"
    ):
        merganser.FisherResult.load(tmp_path / "gram.safetensors")
    with pytest.raises(
        merganser.InputError, match="contains a Fisher; expected Gram matrices"
    ):
        merganser.GramResult.load(tmp_path / "fisher.safetensors")


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(11, 4)
        self.layer = nn.Linear(4, 4)
        self.unused = nn.Linear(4, 4)

    def forward(self, x):
        # The layer is used twice, and the table as an output layer.
        h = self.layer(torch.tanh(self.layer(self.table(x))))
        return nn.functional.linear(h, self.table.weight)


def test_weights_with_several_uses():
    model, x = Tied(), torch.randint(11, (3, 5))
    found = merganser.gram(model, [x])
    assert found.keys() == {"layer.weight"}
    with torch.no_grad():
        first = model.table(x).view(-1, 4)
        second = torch.tanh(model.layer(first))
    expected = (first.T @ first + second.T @ second) / 3
    assert torch.allclose(found["layer.weight"], expected, atol=1e-6)


class SequenceFirst(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 2)

    def forward(self, x, attention_mask):
        return self.layer(x.transpose(0, 1)).mean(0)


def test_sequence_first():
    """Includes B = L, where a mask fits both ways."""
    mask = torch.tensor([[1, 1, 1], [1, 0, 0], [1, 1, 0]])
    x = torch.randn(3, 3, 4)
    model = SequenceFirst()
    found = merganser.gram(model, [{"x": x, "attention_mask": mask}])
    tokens = x[mask.bool()]
    assert torch.allclose(found["layer.weight"], tokens.T @ tokens / 3, atol=1e-6)


class Shared(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Parameter(torch.randn(1, 5, 4))
        self.layer = nn.Linear(4, 4)

    def forward(self, x):
        return x + self.layer(self.table)


@pytest.mark.parametrize("size", [1, 2, 5])
def test_inputs_for_all_examples(size):
    """They count once per example, for any batch size."""
    model, x = Shared(), torch.randn(5, 5, 4)
    found = merganser.gram(model, list(x.split(size)))
    table = model.table.detach()[0]
    assert torch.allclose(found["layer.weight"], table.T @ table, atol=1e-5)


class Flat(SequenceFirst):
    def forward(self, x, attention_mask):
        return self.layer(x.reshape(-1, 4)).view(len(x), -1)


def test_a_mask_that_does_not_tell():
    mask = torch.tensor([[1, 1, 1], [1, 0, 0]])
    batch = {"x": torch.randn(2, 3, 4), "attention_mask": mask}
    with pytest.raises(merganser.InputError, match="no linear layer with a Gram"):
        merganser.gram(Flat(), [batch])
    batch["attention_mask"] = torch.ones_like(mask)
    tokens = batch["x"].view(-1, 4)
    found = merganser.gram(Flat(), [batch])["layer.weight"]
    assert torch.allclose(found, tokens.T @ tokens / 2, atol=1e-6)


def test_rows_are_told_again_where_tokens_are_hidden():
    """Rows of all tokens and of unmasked tokens look alike at first."""
    mask = torch.tensor([[1, 1, 1], [1, 0, 0]])
    whole = {"x": torch.randn(2, 3, 4), "attention_mask": torch.ones_like(mask)}
    padded = {"x": torch.randn(2, 3, 4), "attention_mask": mask}
    with pytest.raises(merganser.InputError, match="no linear layer with a Gram"):
        merganser.gram(Flat(), [whole, padded])


class EncoderDecoder(nn.Module):
    """Has inputs of no sequence or of two, whose masks are unknown."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(11, 4)
        self.encoder = nn.Linear(4, 4)
        self.decoder = nn.Linear(4, 4)
        self.both = nn.Linear(4, 4)
        self.queries = nn.Linear(4, 4)
        self.latents = nn.Parameter(torch.randn(1, 4, 4))

    def forward(self, input_ids, decoder_input_ids, **masks):
        source, target = self.table(input_ids), self.table(decoder_input_ids)
        latent = self.queries(self.latents.expand(len(source), -1, -1))
        self.both(torch.cat([source, target], 1))
        return self.encoder(source), self.decoder(target), latent


def tokens_of(lengths, total):
    ids = torch.randint(11, (len(lengths), total))
    return ids, torch.arange(total) < torch.tensor(lengths)[:, None]


@pytest.mark.parametrize("target_mask", ["absent", "whole", "hides"])
def test_two_sequences(target_mask):
    """One batch has equal lengths, where shapes are ambiguous."""
    model = EncoderDecoder()
    expected = dict.fromkeys(["encoder", "decoder"], 0)
    batches = []
    for lengths, total in (([4, 2], 5), ([4, 1, 3], 4), ([2, 4], 4)):
        ids, mask = tokens_of(lengths, total)
        others, other = tokens_of([4] * len(lengths), 4)
        if target_mask == "hides":
            other = other & (torch.arange(4) < 3)
        batch = {"input_ids": ids, "attention_mask": mask, "decoder_input_ids": others}
        if target_mask != "absent":
            batch["decoder_attention_mask"] = other
        batches.append(batch)
        table = model.table.weight.detach()
        for name, tokens in (
            ("encoder", table[ids[mask]]),
            ("decoder", table[others[other]]),
        ):
            expected[name] = expected[name] + tokens.T @ tokens / 7
    with pytest.warns(UserWarning, match="for both.weight, queries.weight:"):
        found = merganser.gram(model, batches)
    assert found.keys() == {f"{name}.weight" for name in expected}
    for name, matrix in expected.items():
        assert torch.allclose(found[f"{name}.weight"], matrix, atol=1e-5), name


def test_attention():
    """Projections that are not modules."""
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    x = torch.randn(3, 5, 8)
    found = merganser.gram(layer, [x])
    assert found.keys() == {
        "self_attn.in_proj_weight",
        "self_attn.out_proj.weight",
        "linear1.weight",
        "linear2.weight",
    }
    tokens = x.view(-1, 8)
    expected = tokens.T @ tokens / 3
    assert torch.allclose(found["self_attn.in_proj_weight"], expected, atol=1e-6)


class Otherwise(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        return self.head(self.layer(x) @ self.layer.weight)


def test_other_uses_are_named():
    with pytest.warns(UserWarning, match="no Gram matrices for layer.weight:"):
        found = merganser.gram(Otherwise(), [torch.randn(3, 4)])
    assert found.keys() == {"head.weight"}


@pytest.mark.parametrize("name", architectures.CLASSIFIERS)
def test_architectures(name):
    """Padded batches give the same as single examples."""
    model = architectures.make(name)
    full, singles = architectures.batches(name)
    together, alone = merganser.gram(model, full), merganser.gram(model, singles)
    assert together.keys() == alone.keys()
    assert together.num_examples == alone.num_examples == len(singles)
    for key, matrix in alone.items():
        assert (together[key] - matrix).norm() <= 1e-5 * matrix.norm(), key


@pytest.mark.parametrize(
    ("model", "data", "options", "message"),
    [
        (tiny_models.bert, [], {}, "data has no examples"),
        (
            lambda: nn.Embedding(50, 3),
            [torch.ones(1, 2).long()],
            {},
            "no linear layer with",
        ),
        (tiny_models.bert, [], {"limit": 0}, "limit must be"),
        (tiny_models.bert, [], {"dtype": torch.float64}, "dtype must be None"),
    ],
)
def test_refusals(model, data, options, message):
    with pytest.raises(merganser.InputError, match=message):
        merganser.gram(model(), data, **options)


def test_not_finite():
    model = Tied()
    with torch.no_grad():
        model.table.weight.fill_(torch.inf)
    with pytest.raises(merganser.Error, match="layer.weight is not finite"):
        merganser.gram(model, [torch.randint(11, (3, 5))])
