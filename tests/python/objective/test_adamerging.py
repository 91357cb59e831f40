"""merganser.adamerging against autograd through the coefficients, in float64."""

import copy

import merganser
import pytest
import tiny_models
import torch
from merganser._objective.groups import group_names
from torch import nn
from torch.func import functional_call

LENGTHS = [[5, 2, 9, 4], [7, 3, 8]]


def berts(count):
    models = []
    for seed in range(count):
        torch.manual_seed(seed)
        models.append(tiny_models.bert().double().eval())
    return models


def bert_data(count):
    draw = torch.Generator().manual_seed(11)
    return [
        [tiny_models.batch(row, pad_id=0, generator=draw) for row in LENGTHS]
        for _ in range(count)
    ]


def without_labels(batches):
    return [{k: x for k, x in batch.items() if k != "labels"} for batch in batches]


def definition(base, experts, data, groups, start, steps, lr, entropy_of):
    """The authors' loop: weights as a differentiable function of the coefficients, the
    entropies of a batch per task added up, Adam, coefficients clamped to [0, 1]."""
    names = group_names(dict(base.named_parameters()), groups)
    order = list(dict.fromkeys(names.values()))
    shape = len(experts), len(order)
    raw = torch.full(shape, start, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([raw], lr=lr)
    origin = dict(base.named_parameters())
    entropies = []

    def weights():
        used = raw.clamp(0, 1)
        return {
            name: p.detach()
            + sum(
                used[t, order.index(names[name])]
                * (dict(expert.named_parameters())[name] - p).detach()
                for t, expert in enumerate(experts)
            )
            for name, p in origin.items()
        }

    for step in range(steps):
        total = 0
        for batches in data:
            batch = batches[step % len(batches)]
            total = total + entropy_of(
                functional_call(base, weights(), (), batch), batch
            )
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        entropies.append(float(total.detach()))
    with torch.no_grad():
        return raw.clamp(0, 1), weights(), entropies


def of_classes(outputs, _):
    p = outputs.logits.softmax(-1)
    return -(p * p.log()).sum(-1).mean()


def assert_equal(found, expected):
    coefficients, weights, entropies = expected
    torch.testing.assert_close(found.coefficients, coefficients, rtol=1e-8, atol=1e-10)
    assert found.entropies == pytest.approx(entropies, rel=1e-8)
    for name, x in weights.items():
        assert (found.state_dict[name] - x).norm() <= 1e-8 * x.norm(), name


@pytest.mark.slow
@pytest.mark.parametrize("groups", ["global", "block", "tensor"])
@pytest.mark.parametrize(("start", "lr"), [(0.3, 1e-2), (0.95, 0.3)])
def test_against_the_definition(groups, start, lr):
    """With the second pair of values, coefficients leave [0, 1] and are clamped."""
    base, *experts = berts(3)
    data = bert_data(2)
    before = copy.deepcopy(base.state_dict())
    options = {"groups": groups, "start": start, "steps": 5, "lr": lr}
    found = merganser.adamerging(base, experts, data, **options)
    inputs = [without_labels(batches) for batches in data]
    assert_equal(
        found,
        definition(base, experts, inputs, groups, start, 5, lr, of_classes),
    )
    assert found.coefficients.shape == (2, len(found.groups))
    clamped = ((found.coefficients == 0) | (found.coefficients == 1)).any()
    assert clamped == (start == 0.95)
    assert repr(found).startswith("AdaMergingResult(2 experts, ")
    after = base.state_dict()
    assert all(torch.equal(after[name], x) for name, x in before.items())
    assert all(p.grad is None for p in base.parameters())


@pytest.mark.slow
def test_entropy_falls():
    base, *experts = berts(3)
    found = merganser.adamerging(base, experts, bert_data(2), steps=40, lr=0.02)
    assert sum(found.entropies[-2:]) < 0.9 * sum(found.entropies[:2])


def test_sequences_count_unmasked_positions():
    """Labels are not used, not even to choose the positions."""
    from transformers import BertConfig, BertForTokenClassification

    models = []
    for seed in range(3):
        torch.manual_seed(seed)
        config = BertConfig(
            **tiny_models.SIZE,
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=4,
            intermediate_size=28,
            num_labels=3,
        )
        model = BertForTokenClassification(config)
        models.append(tiny_models.with_larger_weights(model).double().eval())
    base, *experts = models
    data = bert_data(2)
    inputs = [without_labels(batches) for batches in data]
    for batches in data:
        for batch in batches:
            batch["labels"] = torch.full_like(batch["input_ids"], -100)

    def of_positions(outputs, batch):
        p = outputs.logits.softmax(-1)[batch["attention_mask"] == 1]
        return -(p * p.log()).sum(-1).mean()

    options = {"groups": "global", "start": 0.3, "steps": 3, "lr": 0.01}
    found = merganser.adamerging(base, experts, data, **options)
    expected = definition(base, experts, inputs, *options.values(), of_positions)
    assert_equal(found, expected)


def linears(count=3, outputs=3):
    torch.manual_seed(0)
    return [nn.Linear(4, outputs).double() for _ in range(count)]


def test_iterators_are_read_again_and_frozen_tensors_stay():
    base, *experts = linears()
    base.bias.requires_grad_(False)
    batches = [list(torch.randn(6, 4).double().split(2)) for _ in experts]
    calls = []
    options = {"steps": 5, "lr": 0.1, "groups": "global"}
    found = merganser.adamerging(
        base,
        [experts[0].state_dict(), experts[1]],
        [iter(x) for x in batches],
        progress=lambda *call: calls.append(call),
        **options,
    )
    again = merganser.adamerging(base, experts, batches, **options)
    assert torch.equal(found.coefficients, again.coefficients)
    assert torch.equal(found.state_dict["bias"], base.bias)
    assert [call[:2] for call in calls] == [(i, 5) for i in range(1, 6)]
    assert calls[0][2] == f"entropy {found.entropies[0]:.6g}"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"groups": "layer"}, "groups must be one of global, block, tensor"),
        ({"start": 1.5}, "start must be a number of at least 0 and at most 1"),
        ({"lr": -1}, "lr must be a number of at least 0"),
        ({"steps": 0}, "steps must be at least 1"),
        ({"loss": "regression"}, "needs a model with class probabilities"),
        ({"data": [[torch.ones(2, 4).double()]]}, "data must have one item per expert"),
        ({"data": [[], []]}, r"data\[0\] has no examples"),
        ({"experts": []}, "experts must have at least one model"),
    ],
)
def test_refusals(change, message):
    base, *experts = linears()
    x = torch.randn(3, 4).double()
    arguments = {"base": base, "experts": experts, "data": [[x], [x]]}
    with pytest.raises(merganser.InputError, match=message):
        merganser.adamerging(**(arguments | change))


def test_values_that_are_not_finite():
    base, *experts = linears()
    x = torch.full((2, 4), torch.inf).double()
    with pytest.raises(
        merganser.Error, match=r"the entropy on data\[0\] is not finite"
    ):
        merganser.adamerging(base, experts, [[x], [x]])
