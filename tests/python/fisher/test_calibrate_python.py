"""merganser.calibrate for any module, against definitions in float64."""

import copy
import math

import merganser
import pytest
import torch
from merganser import InputError
from torch import nn
from torch.nn import functional


def make_mlp(seed):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3)).double()


@pytest.fixture
def problem():
    """A model, a merge 0.3 away, and batches of 23 examples."""
    model = make_mlp(0)
    merge = make_mlp(1)
    with torch.no_grad():
        for a, b in zip(merge.parameters(), model.parameters(), strict=True):
            a.mul_(0.3).add_(b)
    x, y = torch.randn(23, 5).double(), torch.randint(3, (23,))
    batches = [(x[i : i + 6], y[i : i + 6]) for i in range(0, 23, 6)]
    return model, merge, batches


def define(model, merge, batches, fisher, loss):
    """The scale and its standard error, from losses of whole models."""
    middle = copy.deepcopy(model)
    with torch.no_grad():
        for a, b in zip(middle.parameters(), merge.parameters(), strict=True):
            a.add_(b).div_(2)
        at = [
            torch.cat([loss(m(x), y) for x, y in batches])
            for m in (model, middle, merge)
        ]
        path = {
            n: b - a
            for (n, a), b in zip(
                model.named_parameters(), merge.parameters(), strict=True
            )
        }
    curvature = 4 * (at[0] - 2 * at[1] + at[2])
    quadratic = sum((f * path[n] ** 2).sum() for n, f in fisher.items())
    error = curvature.std() / math.sqrt(len(curvature))
    return float(curvature.mean() / quadratic), float(error / quadratic)


def cross_entropy(outputs, labels):
    return functional.cross_entropy(outputs, labels, reduction="none")


@pytest.mark.parametrize("form", ["loader", "iterator", "own loss"])
def test_is_the_definition(problem, form):
    model, merge, batches = problem
    before = {n: x.clone() for n, x in model.state_dict().items()}
    fisher = merganser.fisher(model, batches, "exact", loss="classification")
    given = iter(batches) if form == "iterator" else batches
    loss = cross_entropy if form == "own loss" else "auto"
    seen = []
    found = merganser.calibrate(
        fisher,
        model,
        merge.state_dict(),
        given,
        loss=loss,
        progress=lambda *done: seen.append(done),
    )
    value, error = define(model, merge, batches, fisher, cross_entropy)
    assert found.scale.scale.value == pytest.approx(value, rel=1e-9)
    assert found.scale.scale.standard_error == pytest.approx(error, rel=1e-9)
    assert found.scale.num_examples_used == 23
    assert fisher.scale is None and torch.equal(found["0.weight"], fisher["0.weight"])
    assert all(torch.equal(x, before[n]) for n, x in model.state_dict().items())
    assert seen[-1][0] == 69 and [s[0] for s in seen] == sorted(s[0] for s in seen)


def test_any_order_of_the_examples(problem):
    """Also where every pass over the loader has another one."""
    model, merge, batches = problem
    data = torch.utils.data.TensorDataset(*map(torch.cat, zip(*batches, strict=True)))
    fisher = merganser.fisher(model, batches, "exact")
    loader = torch.utils.data.DataLoader(data, batch_size=4, shuffle=True)
    found = merganser.calibrate(fisher, model, merge, loader).scale.scale
    value, error = define(model, merge, batches, fisher, cross_entropy)
    assert found.value == pytest.approx(value, rel=1e-9)
    assert found.standard_error == pytest.approx(error, rel=1e-9)


def test_frozen_parameters_and_buffers(problem):
    """The path is the whole way to the merge."""
    model, merge, batches = problem
    fisher = merganser.fisher(model, batches, "exact")
    expected = define(model, merge, batches, fisher, cross_entropy)[0]
    model[0].requires_grad_(False)
    found = merganser.calibrate(fisher, model, merge, batches).scale.scale
    assert found.value == pytest.approx(expected, rel=1e-9)
    assert [p.requires_grad for p in model.parameters()] == [False] * 2 + [True] * 2
    del fisher.diagonal["0.weight"]
    with pytest.raises(InputError, match="lacks tensors of its model: '?0.weight"):
        merganser.calibrate(fisher, model, merge, batches)

    def with_norm(source):
        return nn.Sequential(*source[:2], nn.BatchNorm1d(7).double(), source[2]).eval()

    model, merge = with_norm(model).requires_grad_(), with_norm(merge)
    with torch.no_grad():
        merge[2].running_mean += 0.3
    fisher = merganser.fisher(model, batches, "exact")
    middle = copy.deepcopy(model)
    middle.load_state_dict(
        {
            n: (x + merge.state_dict()[n]) / 2 if x.is_floating_point() else x
            for n, x in model.state_dict().items()
        }
    )
    with torch.no_grad():
        at = [
            torch.cat([cross_entropy(m(x), y) for x, y in batches]).mean()
            for m in (model, middle, merge)
        ]
    end = dict(merge.named_parameters())
    quadratic = sum(
        (fisher[n] * (end[n] - p) ** 2).sum() for n, p in model.named_parameters()
    )
    found = merganser.calibrate(fisher, model, merge, batches).scale.scale
    curvature = 4 * (at[0] - 2 * at[1] + at[2])
    assert found.value == pytest.approx(float(curvature / quadratic), rel=1e-9)


def test_regression_is_exact():
    """One linear output: the curvature is D^T X^T X D / n, whatever the labels."""
    torch.manual_seed(0)
    model, merge = (nn.Linear(4, 1, bias=False).double() for _ in range(2))
    x, y = torch.randn(15, 4).double(), torch.randn(15, 1).double()
    fisher = merganser.fisher(model, [(x, y)], "exact", loss="regression")
    found = merganser.calibrate(fisher, model, merge, [(x, y)], loss="regression")
    d = (merge.weight - model.weight).detach()[0]
    expected = (x @ d).square().mean() / (x.square().mean(0) @ d.square())
    assert found.scale.scale.value == pytest.approx(float(expected), rel=1e-8)


def test_a_sample(problem):
    """`limit` takes the examples that `merganser.fisher` takes."""
    model, merge, batches = problem
    data = torch.utils.data.TensorDataset(*map(torch.cat, zip(*batches, strict=True)))
    fisher = merganser.fisher(model, batches, "exact")
    chosen = merganser._C.draw_subset(23, 10, 4)
    some = [tuple(t[chosen] for t in data.tensors)]
    loader = torch.utils.data.DataLoader(data, batch_size=3)
    found = merganser.calibrate(fisher, model, merge, loader, limit=10, seed=4)
    value, _ = define(model, merge, some, fisher, cross_entropy)
    assert found.scale.scale.value == pytest.approx(value, rel=1e-9)
    assert found.scale.num_examples_used == 10


def test_a_recipe_reads_it(problem, tmp_path):
    """fisher_scale: auto multiplies by the scale."""
    model, merge, batches = problem
    fisher = merganser.fisher(model, batches, "exact")
    found = merganser.calibrate(fisher, model, merge, batches)
    found.save(tmp_path / "f.safetensors")
    loaded = merganser.FisherResult.load(tmp_path / "f.safetensors")
    assert loaded.scale.scale.value == found.scale.scale.value
    arguments = (make_mlp(3), [model], [found], "fisher_base")
    c = found.scale.scale.value
    auto, number = (
        merganser.merge(*arguments, base_fisher=fisher, parameters={"fisher_scale": x})
        for x in ("auto", c)
    )
    assert all(torch.equal(auto[n], number[n]) for n in auto)


def test_bad_input(problem):
    model, merge, batches = problem
    fisher = merganser.fisher(model, batches, "exact")
    zero = merganser.FisherResult({n: 0 * f for n, f in fisher.items()}, 23, 23, "mc")
    other = make_mlp(5)
    half = copy.deepcopy(model).bfloat16()
    broken = copy.deepcopy(merge)
    broken[0].bias.data[0] = math.nan
    huge = copy.deepcopy(merge)
    huge[2].weight.data.fill_(1e308)
    calibrate = merganser.calibrate
    for words, arguments in (
        ("weights of model", (fisher, model, model, batches)),
        ("fisher is 0 along the path", (zero, model, merge, batches)),
        ("no labels", (fisher, model, merge, [x for x, _ in batches])),
        ("no examples", (fisher, model, merge, [])),
        ("at least 2 examples", (fisher, model, merge, [[t[:1] for t in batches[0]]])),
        ("not finite", (fisher, model, broken, batches)),
        ("expected a model in float32", (fisher, half, merge, batches)),
        ("other weights", (fisher, other, model, batches)),
    ):
        with pytest.raises(InputError, match=words):
            calibrate(*arguments)
    with pytest.raises(InputError, match="positive curvature"):
        concave = lambda outputs, _: -outputs.square().sum(1)  # noqa: E731
        calibrate(fisher, model, merge, batches, loss=concave)
    with pytest.raises(merganser.Error, match="is not finite"):
        calibrate(fisher, model, huge, batches)
