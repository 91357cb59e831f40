"""Gram matrices of linear layers' inputs, against a loop over single examples."""

import copy

import merganser
import pytest
import tiny_models
import torch
from torch import nn

LENGTHS = (7, 3, 5, 1, 6)


def batches(size):
    """The texts of LENGTHS, padded within batches of `size`."""
    draw = torch.Generator().manual_seed(0)
    texts = [torch.randint(5, 43, (n,), generator=draw) for n in LENGTHS]
    for start in range(0, len(texts), size):
        rows = texts[start : start + size]
        ids = nn.utils.rnn.pad_sequence(rows, batch_first=True)
        mask = (
            torch.arange(ids.shape[1]) < torch.tensor([len(r) for r in rows])[:, None]
        )
        yield {"input_ids": ids, "attention_mask": mask.long()}


def definition(model):
    """Inputs of nn.Linear modules by hooks, one text at a time, in float64."""
    model = copy.deepcopy(model).double().eval()
    sums = {}

    def hook(name):
        def add(module, args):
            a = args[0].reshape(-1, args[0].shape[-1])
            sums[name] = sums.get(name, 0) + a.T @ a

        return add

    handles = [
        module.register_forward_pre_hook(hook(f"{name}.weight"))
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
    ]
    with torch.no_grad():
        for batch in batches(1):
            model(**batch)
    for handle in handles:
        handle.remove()
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
    with pytest.raises(merganser.InputError, match="has Gram matrices, no Fisher"):
        merganser.FisherResult.load(tmp_path / "gram.safetensors")
    with pytest.raises(merganser.InputError, match="has a Fisher, not Gram"):
        merganser.GramResult.load(tmp_path / "fisher.safetensors")


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(11, 4)
        self.layer = nn.Linear(4, 4)
        self.unused = nn.Linear(4, 4)

    def forward(self, x):
        # The layer twice; and the table as an output layer.
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


def test_a_mask_that_does_not_tell():
    mask = torch.tensor([[1, 1, 1], [1, 0, 0]])
    batch = {"x": torch.randn(2, 3, 4), "attention_mask": mask}
    with pytest.raises(merganser.InputError, match="which tokens of layer.weight's"):
        merganser.gram(SequenceFirst(), [batch])
    batch["attention_mask"] = torch.ones_like(mask)
    assert len(merganser.gram(SequenceFirst(), [batch])) == 1


@pytest.mark.parametrize(
    ("model", "data", "options", "message"),
    [
        (tiny_models.bert, [], {}, "data has no examples"),
        (lambda: nn.Embedding(50, 3), [torch.ones(1, 2).long()], {}, "no linear layer"),
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
