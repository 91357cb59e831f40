"""measured_gradient_matching on quadratic losses, and where it has no rho."""

import warnings
from functools import partial

import merganser
import pytest
import tiny_models
import torch
from merganser._C import (
    AlongTaskVector,
    Estimate,
    TaskVectorStatistics,
    content_hash,
)
from torch import nn
from transformers import BertForSequenceClassification

# Least squares with one coordinate per row: diagonal, quadratic losses.


def rows(dimension, count, seed):
    """Inputs (N, D) with one number each, and targets."""
    generator = torch.Generator().manual_seed(seed)
    normal = partial(torch.randn, generator=generator, dtype=torch.float64)
    x = torch.zeros(count, dimension, dtype=torch.float64)
    x[torch.arange(count), torch.arange(count) % dimension] = normal(count)
    return x, 3 * normal(count, 1)


def optimum(data, center=0.0, precision=0.0):
    """argmin of 1/2 sum (y - x . w)^2 + 1/2 |w - center|^2_precision."""
    x, y = data
    h = x.square().sum(0)
    return ((x * y).sum(0) + precision * center) / (h + precision)


def module(weight):
    layer = nn.Linear(len(weight), 1, bias=False).double()
    layer.load_state_dict({"weight": weight[None]})
    return layer


@pytest.mark.parametrize("proximal", [0.0, 0.5, 1.0])
def test_the_merge_is_exact_whatever_the_experts_training(proximal):
    """gradient_matching is exact for experts trained with the proximal term only,
    fisher_base for those without."""
    weights = [1.0, 0.5]
    base_data, *data = [rows(6, n, n) for n in (60, 30, 18)]
    base = module(optimum(base_data))
    h0 = base_data[0].square().sum(0)
    experts = [module(optimum(d, base.weight.detach()[0], proximal * h0)) for d in data]
    options = {"loss": "regression"}
    base_fisher = merganser.fisher(base, [base_data], **options)
    along = {"base": base, "base_data": [base_data]}
    fishers = [
        merganser.fisher(expert, [d], **options, **along)
        for expert, d in zip(experts, data, strict=True)
    ]
    joint = [base_data, *data]
    scale = [1.0, *weights]
    h = sum(a * x.square().sum(0) for a, (x, _) in zip(scale, joint, strict=True))
    moment = sum(a * (x * y).sum(0) for a, (x, y) in zip(scale, joint, strict=True))

    def error(method, **parameters):
        merged = merganser.merge(
            base,
            experts,
            fishers,
            method,
            weights,
            base_fisher=base_fisher,
            parameters={"delta": 0} | parameters,
        )
        return (merged["weight"][0] - moment / h).abs().max().item()

    assert error("measured_gradient_matching") < 1e-10
    assert error("measured_gradient_matching", rho=proximal) < 1e-10
    assert error("measured_gradient_matching", rho=proximal + 0.1) > 1e-3
    assert (error("gradient_matching") < 1e-10) == (proximal == 1)
    assert (error("fisher_base") < 1e-10) == (proximal == 0)
    for fisher, d in zip(fishers, data, strict=True):
        along = fisher.task_vector.total
        n = len(d[0])
        rho = -n * along.slope.value / (len(base_data[0]) * along.curvature.value)
        assert rho == pytest.approx(proximal, abs=1e-10)


def along(slope, curvature, base_model_hash="", error=0.1):
    both = [Estimate(x, error) for x in (slope, curvature)]
    return TaskVectorStatistics(
        base_model_hash=base_model_hash,
        num_examples_used=5,
        base_num_examples_used=5,
        total=AlongTaskVector(*both),
        groups=[],
    )


def test_unstable_rhos_are_said():
    base, expert = {"w": torch.zeros(2)}, {"w": torch.ones(2)}
    plain = merganser.FisherResult({"w": torch.ones(2)}, 10, 10, "exact")
    wild = merganser.FisherResult(
        plain.diagonal, 10, 10, "exact", task_vector=along(-30, 2)
    )
    merge = partial(
        merganser.merge,
        base,
        [expert],
        [wild],
        "measured_gradient_matching",
        base_fisher=plain,
    )
    with pytest.warns(UserWarning, match=r"fishers\[0\]: rho is 15 ± .*larger limit"):
        merged = merge()
    assert merged["w"][0].item() == pytest.approx((15 + 1) / 2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        merge(parameters={"rho": 0.5})


def test_the_task_vector_is_that_of_the_models(tmp_path):
    """Where the checkpoints are known."""
    models = {}
    for name in ("base", "a", "b"):
        tiny_models.bert(num_labels=2).save_pretrained(tmp_path / name)
        models[name] = BertForSequenceClassification.from_pretrained(tmp_path / name)
    hashes = {name: content_hash(tmp_path / name) for name in models}
    ones = {name: torch.ones_like(x) for name, x in models["a"].named_parameters()}
    plain = merganser.FisherResult(ones, 10, 10, "exact")

    def fisher(name, base):
        return merganser.FisherResult(
            ones,
            10,
            10,
            "exact",
            base_model_hash=hashes[name],
            task_vector=along(-0.6, 2, hashes[base]),
        )

    def merge(fishers, method="measured_gradient_matching"):
        merganser.merge(
            models["base"],
            [models["a"], models["b"]],
            fishers,
            method,
            base_fisher=plain,
        )

    merge([fisher("a", "base"), fisher("b", "base")])
    swapped = [fisher("b", "base"), fisher("a", "base")]
    for fishers, words in (
        (swapped, r"fishers\[0\] was measured along .* those of models\[0\]"),
        ([fisher("a", "b"), fisher("b", "base")], r"fishers\[0\] .* those of base"),
    ):
        with pytest.raises(merganser.InputError, match=words):
            merge(fishers)
        merge(fishers, "gradient_matching")


def test_auto_needs_statistics_and_curvature():
    base = {"w": torch.zeros(2)}
    expert = {"w": torch.ones(2)}
    plain = merganser.FisherResult({"w": torch.ones(2)}, 10, 10, "exact")

    def merge(task_vector, **parameters):
        own = merganser.FisherResult(
            plain.diagonal, 10, 10, "exact", task_vector=task_vector
        )
        merged = merganser.merge(
            base,
            [expert],
            [own],
            "measured_gradient_matching",
            base_fisher=plain,
            parameters=parameters,
        )
        return merged["w"][0].item()

    # (rho H_0 + H_1) / (H_0 + H_1) with equal Fishers.
    assert merge(along(-0.6, 2)) == pytest.approx((0.3 + 1) / 2)
    assert merge(None, rho=0.3) == pytest.approx((0.3 + 1) / 2)
    assert merge(along(0, 0)) == 1
    assert merge(along(-0.6, 0), rho=0.3) == pytest.approx((0.3 + 1) / 2)
    for task_vector, words in (
        (None, r"fishers\[0\]: rho: auto expects a Fisher with the gradient"),
        (along(-0.6, 0), r"fishers\[0\]: rho: auto expects curvature"),
    ):
        with pytest.raises(merganser.InputError, match=words):
            merge(task_vector)
    with pytest.raises(merganser.InputError, match="must be a number"):
        merge(None, rho=["auto", 1])
