"""merganser.mismatch on regressions in closed form, and on a small BERT against float64
loops over examples."""

import copy
import json
import re

import architectures
import merganser
import pytest
import quadratic
import tiny_models
import torch
from torch import nn

LOSS = "regression"


@pytest.fixture
def problem():
    return quadratic.problem()


def run(problem, candidates, **options):
    settings = {
        "weights": problem.weights,
        "fishers": problem.fishers,
        "base_fisher": problem.base_fisher,
        "loss": LOSS,
    }
    return merganser.mismatch(
        problem.base, problem.experts, problem.data, candidates, **(settings | options)
    )


def random_model():
    return quadratic.linear(torch.randn(quadratic.OUT, quadratic.IN).double())


def gradient_loop(model, x, y):
    total = torch.zeros_like(model.weight)
    for row, label in zip(x, y, strict=True):
        loss = 0.5 * (label - model(row)).square().sum()
        total += torch.autograd.grad(loss, model.weight)[0]
    return total


def mismatch_loop(problem, t, model):
    x, y = problem.sets[t]
    here, there = gradient_loop(model, x, y), gradient_loop(problem.experts[t], x, y)
    return problem.weights[t] * (here - there)


def test_identity_at_the_target(problem):
    found = run(problem, {"target": problem.target}, target=problem.target)
    assert found.at_target == found["target"]
    alone = run(problem, {}, target=problem.target)
    assert len(alone) == 0 and alone.at_target == found["target"]
    sides = found.target
    assert sides == alone.target
    assert sides.left_norm > 0.1
    assert sides.difference_norm <= 1e-10 * sides.left_norm
    assert abs(sides.cosine - 1) < 1e-10
    assert abs(sides.left_norm - sides.right_norm) <= 1e-10 * sides.left_norm
    difference = problem.target.weight - problem.arithmetic.weight
    assert (
        abs(sides.left_norm - float(difference.detach().norm()))
        <= 1e-10 * sides.left_norm
    )


def test_norms_against_loops(problem):
    model = random_model()
    found = run(problem, {"m": model})["m"]
    whole = sum(mismatch_loop(problem, t, model) for t in range(2))
    parts = [(found.total, whole)]
    parts += [
        (found.tasks[f"experts[{t}]"], mismatch_loop(problem, t, model))
        for t in range(2)
    ]
    for norms, m in parts:
        assert norms.mismatch.norm == pytest.approx(float(m.detach().norm()), rel=1e-10)
        inverse = (m.square() / problem.h0).sum().sqrt()
        assert norms.mismatch.h0_inverse_norm == pytest.approx(
            float(inverse.detach()), rel=1e-10
        )
        assert norms.mismatch.share_without_h0 == 0


def test_exact_hessians_explain_everything(problem):
    found = run(problem, {"m": random_model()})["m"]
    for part in (found.total, *found.tasks.values()):
        assert part.explained.norm == pytest.approx(part.mismatch.norm, rel=1e-10)
        assert part.rest.norm <= 1e-10 * part.mismatch.norm
        assert part.rest.h0_inverse_norm <= 1e-10 * part.mismatch.h0_inverse_norm


@pytest.mark.parametrize("size", [1, 7, 100])
def test_any_batch_size(problem, size):
    model = random_model()
    expected = run(problem, [model])["candidates[0]"].total.mismatch
    problem.data = quadratic.problem(size=size).data
    found = run(problem, [model])["candidates[0]"].total.mismatch
    assert found.norm == pytest.approx(expected.norm, rel=1e-12)
    assert found.h0_inverse_norm == pytest.approx(expected.h0_inverse_norm, rel=1e-12)


def test_data_that_are_read_once(problem):
    model = random_model()
    expected = run(problem, {"m": model})
    problem.data = [(batch for batch in batches) for batches in problem.data]
    assert run(problem, {"m": model}).to_json() == expected.to_json()


def test_zero_curvature_is_left_out_and_counted(problem):
    problem.base_fisher.diagonal["weight"][1, 2] = 0
    problem.h0 = problem.h0.clone()
    problem.h0[1, 2] = torch.inf
    model = random_model()
    found = run(problem, {"m": model})
    m = sum(mismatch_loop(problem, t, model) for t in range(2))
    norms = found["m"].total.mismatch
    assert found.parameters_without_h0 == 1 and found.parameters == 15
    inverse = float((m.square() / problem.h0).sum().sqrt())
    assert norms.h0_inverse_norm == pytest.approx(inverse, rel=1e-10)
    share = float(m[1, 2] ** 2 / m.square().sum())
    assert norms.share_without_h0 == pytest.approx(share, rel=1e-10)


def test_sample_scales_to_the_data_set(problem):
    """With `limit`, l_t is N_t times the mean over the sample."""
    model = random_model()
    x, y = problem.sets[0]
    sample = torch.tensor(merganser._C.draw_subset(len(x), 4, 3))
    options = {"fishers": None, "limit": 4, "seed": 3, "weights": 1.0}
    problem.experts, problem.data = problem.experts[:1], problem.data[:1]
    found = run(problem, [model], **options)
    assert found.examples == {"experts[0]": 4}
    here = gradient_loop(model, x[sample], y[sample])
    there = gradient_loop(problem.experts[0], x[sample], y[sample])
    expected = len(x) / 4 * (here - there).norm()
    norm = found["candidates[0]"].total.mismatch.norm
    assert norm == pytest.approx(float(expected.detach()), rel=1e-10)
    assert found["candidates[0]"].total.rest is None


NUMBERS = {
    "given": (10, True, 10),
    "of the Fisher": (None, True, 40),
    "of the data": (None, False, 20),
}


@pytest.mark.parametrize("name", NUMBERS)
def test_one_number_of_examples_per_task(name, problem):
    """The same N_t scales l_t and H_t = N_t F_t, so that H_t explains everything."""
    given, has_fisher, number = NUMBERS[name]
    x, y = quadratic.design(20, torch.Generator().manual_seed(5))
    fisher = quadratic.fisher_of(x)
    fisher.num_examples = 40
    model = random_model()
    problem.experts, problem.data = problem.experts[:1], [[(x, y)]]
    found = run(
        problem,
        {"m": model},
        weights=1.0,
        fishers=[fisher] if has_fisher else None,
        num_examples=None if given is None else [given],
    )["m"].total
    m = gradient_loop(model, x, y) - gradient_loop(problem.experts[0], x, y)
    expected = number / 20 * float(m.detach().norm())
    assert found.mismatch.norm == pytest.approx(expected, rel=1e-10)
    if has_fisher:
        assert found.rest.norm <= 1e-10 * expected


def classifiers():
    models = [architectures.make("bert")]
    for seed in (1, 2):
        torch.manual_seed(seed)
        model = copy.deepcopy(models[0])
        with torch.no_grad():
            for p in model.parameters():
                p.add_(0.05 * torch.randn_like(p))
        models.append(model)
    data, examples = architectures.batches("bert")
    return models[0], models[1:], data, examples


def loop_over_classifier(model, data, examples):
    model = copy.deepcopy(model).double().eval()
    labels = torch.cat([batch["labels"] for batch in data])
    total = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    for example, label in zip(examples, labels, strict=True):
        nll = nn.functional.cross_entropy(model(**example).logits, label[None])
        gradients = torch.autograd.grad(
            nll, list(total and model.parameters()), allow_unused=True
        )
        for name, gradient in zip(total, gradients, strict=True):
            if gradient is not None:
                total[name] += gradient
    return total


@pytest.mark.parametrize("groups", ["global", "block", "tensor"])
def test_classifier_by_group(groups):
    base, experts, data, examples = classifiers()
    found = merganser.mismatch(base, experts, [data] * 2, {"base": base}, groups=groups)
    here = loop_over_classifier(base, data, examples)
    there = [loop_over_classifier(model, data, examples) for model in experts]
    m = {name: 2 * x - there[0][name] - there[1][name] for name, x in here.items()}
    norm = sum(x.square().sum() for x in m.values()).sqrt()
    total = found["base"].total.mismatch
    assert total.norm == pytest.approx(float(norm), rel=1e-4)
    assert total.h0_inverse_norm is None
    by_group = found["base"].groups
    if groups == "global":
        assert by_group == {}
        return
    squares = sum(x.mismatch.norm**2 for x in by_group.values())
    assert squares == pytest.approx(total.norm**2, rel=1e-9)
    if groups == "tensor":
        name = "bert.encoder.layer.1.output.dense.weight"
        expected = float(m[name].norm())
        assert by_group[name].mismatch.norm == pytest.approx(expected, rel=1e-4)
    else:
        assert set(by_group) == {
            "embeddings",
            "bert.encoder.layer.0 attention",
            "bert.encoder.layer.0 mlp",
            "bert.encoder.layer.1 attention",
            "bert.encoder.layer.1 mlp",
            "head",
        }


def test_models_as_modules_state_dicts_and_paths(tmp_path):
    base, experts, data, _ = classifiers()
    paths = []
    for t, model in enumerate(experts):
        paths.append(tmp_path / str(t))
        model.save_pretrained(paths[-1])
    states = [model.state_dict() for model in experts]
    found = [
        merganser.mismatch(base, given, [data] * 2, {"base": base}).to_json()
        for given in (experts, states, paths)
    ]
    assert found[0] == found[1] == found[2]


@pytest.mark.slow
def test_rounding_in_h0_counts_as_zero():
    """The softmax does not depend on key biases: their gradients and H_0 are rounding
    errors, whose quotients depend on the batch size."""
    base, experts, data, _ = classifiers()
    keys = [p for n, p in base.named_parameters() if n.endswith("key.bias")]
    batches = [
        {k: v[i : i + 1] for k, v in batch.items()}
        for batch in data
        for i in range(len(batch["labels"]))
    ]
    found = [
        merganser.mismatch(
            base,
            experts,
            [given] * 2,
            {"m": base},
            base_fisher=merganser.fisher(base, given),
            groups="tensor",
        )
        for given in (data, batches)
    ]
    one, other = (x["m"].total.mismatch.h0_inverse_norm for x in found)
    assert one == pytest.approx(other, rel=1e-4)
    name = "bert.encoder.layer.0.attention.self.key.bias"
    for x in found:
        assert x.parameters_without_h0 >= sum(p.numel() for p in keys)
        bias = x["m"].groups[name].mismatch
        assert bias.h0_inverse_norm == 0 and bias.share_without_h0 == 1


def test_table_and_json(problem):
    found = run(problem, {"one": random_model(), "two": random_model()})
    lines = str(found).splitlines()
    assert lines[0].split()[:3] == ["model", "part", "mismatch"]
    assert len(lines) == 1 + 2 * 3 + 1
    assert lines[-1].startswith("H0 = 0 for 0 of 15 parameters")
    assert lines[0].count("1/H0") == 3
    with_target = run(problem, {"one": random_model()}, target=problem.target)
    assert f"cosine {with_target.target.cosine:.4f}." in str(with_target)
    lines_of_target = str(with_target).splitlines()[4:7]
    assert all(line.startswith("theta*  ") for line in lines_of_target)
    norm = with_target.at_target.total.mismatch.norm
    assert f"{norm:.4g}" in lines_of_target[0]
    assert f"{found['two'].total.mismatch.norm:.4g}" in lines[4]
    saved = json.loads(found.to_json())
    assert saved["candidates"]["one"]["total"]["rest"]["norm"] == (
        found["one"].total.rest.norm
    )


def test_progress_names_the_model_and_data(problem):
    said = []
    run(problem, {"m": random_model()}, progress=lambda *given: said.append(given))
    assert {text for *_, text in said} == {
        "experts[0] on data[0]",
        "experts[1] on data[1]",
        "m on data[0]",
        "m on data[1]",
    }
    assert said[2] == (10, 10, "experts[0] on data[0]")


def test_the_module_is_as_before():
    base, experts, data, _ = classifiers()
    base.train()
    base.bert.encoder.eval()
    base.classifier.bias.grad = torch.ones(3)
    base.classifier.weight.requires_grad_(False)
    before = copy.deepcopy(base.state_dict())
    modes = [module.training for module in base.modules()]

    def fail(done, total, text):
        if text.startswith("m on"):
            raise KeyboardInterrupt

    merganser.mismatch(base, experts, [data] * 2, {"m": experts[0]})
    with pytest.raises(KeyboardInterrupt):
        merganser.mismatch(base, experts, [data] * 2, {"m": experts[0]}, progress=fail)
    assert all(torch.equal(x, before[name]) for name, x in base.state_dict().items())
    assert [module.training for module in base.modules()] == modes
    assert torch.equal(base.classifier.bias.grad, torch.ones(3))
    assert not base.classifier.weight.requires_grad
    assert not any(m._forward_hooks or m._backward_hooks for m in base.modules())
    assert not any(p._backward_hooks for p in base.parameters())


# Bad input: one sentence each


def spoiled(model, value, name="weight"):
    state = {n: x.clone() for n, x in model.state_dict().items()}
    state[name].view(-1)[0] = value
    return state


BAD = {
    "shape": (
        {"candidates": [nn.Linear(4, 3, bias=False).double()]},
        r"candidates\[0\]: tensor 'weight' has shape \[3, 4\], but \[3, 5\] in base",
    ),
    "no candidate": ({"candidates": []}, "candidates must have at least one"),
    "one state dict": (
        {"candidates": {"weight": torch.zeros(3, 5)}},
        "candidates must be models by name or a list, not one model",
    ),
    "base Fisher of 0": (
        {
            "base_fisher": merganser.FisherResult(
                {"weight": torch.zeros(3, 5)}, 10, 10, "exact"
            )
        },
        "base_fisher is 0 everywhere",
    ),
    "weights": ({"weights": [1.0]}, "weights must have 2 items"),
    "negative weight": ({"weights": [1.0, -1]}, "positive, not -1"),
    "zero": ({"weights": 0}, "weights must be finite numbers, positive, not 0"),
    "weights beyond float32": (
        {"weights": [1.0, 1e38]},
        r"weights overflow float32: 1e\+38 times the 15 examples of data\[1\]",
    ),
    "weights that overflow with the gradient": (
        {"weights": 1e37, "candidates": [spoiled(quadratic.linear(0), 1e200)]},
        "weights overflow float32: the mismatch weighted by them is not finite",
    ),
    "a weight that is text": ({"weights": "ab"}, "weights must be numbers, one per"),
    "groups": ({"groups": "layer"}, "groups must be one of global, block, tensor"),
    "no base Fisher": (
        {"base_fisher": None, "target": quadratic.problem().target},
        "target needs base_fisher",
    ),
    "data": ({"data": [[]]}, "data must have one item per expert: expected 2, got 1"),
    "empty data": (
        {"data": [quadratic.problem().data[0], []]},
        r"^data\[1\] has no examples$",
    ),
    "empty sample": (
        {"data": [quadratic.problem().data[0], []], "limit": 3},
        r"^data\[1\] has no examples$",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name, problem):
    options, message = BAD[name]
    options = dict(options)
    candidates = options.pop("candidates", {"m": problem.target})
    problem.data = options.pop("data", problem.data)
    before = problem.base.weight.detach().clone()
    with pytest.raises(merganser.InputError, match=message) as caught:
        run(problem, candidates, **options)
    assert "\n" not in str(caught.value)
    assert torch.equal(problem.base.weight, before)


def test_expert_and_target_of_other_shapes(problem):
    other = nn.Linear(4, 3, bias=False).double()
    message = r"{}: tensor 'weight' has shape \[3, 4\], but \[3, 5\] in base"
    with pytest.raises(merganser.InputError, match=message.format("target")):
        run(problem, {"m": problem.target}, target=other)
    problem.experts[1] = other
    with pytest.raises(merganser.InputError, match=message.format(r"experts\[1\]")):
        run(problem, {"m": problem.target})


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -1.0])
@pytest.mark.parametrize("label", ["base_fisher", "fishers[1]"])
def test_fisher_with_bad_values(label, value, problem):
    fisher = problem.base_fisher if label == "base_fisher" else problem.fishers[1]
    fisher.diagonal["weight"][1, 2] = value
    message = f"{label}: the values of tensor 'weight' must be finite and not negative"
    with pytest.raises(merganser.InputError, match=re.escape(message)):
        run(problem, {"m": problem.target})


def test_target_that_is_not_finite(problem):
    bad = spoiled(problem.target, torch.nan)
    with pytest.raises(
        merganser.InputError, match="target: tensor 'weight' has values"
    ):
        run(problem, {"m": problem.target}, target=bad)


def test_data_without_labels():
    base, experts, data, _ = classifiers()
    unlabeled = [{k: v for k, v in b.items() if k != "labels"} for b in data]
    with pytest.raises(
        merganser.InputError, match=r"data\[1\] has no labels, which mismatch needs"
    ):
        merganser.mismatch(base, experts, [data, unlabeled], {"m": base})


def test_fewer_examples_than_classes():
    base, experts, _, _ = classifiers()
    few = [tiny_models.batch([4, 5])]
    with pytest.raises(
        merganser.InputError,
        match=r"data\[0\] has 2 examples, fewer than the model's 3",
    ):
        merganser.mismatch(base, experts, [few] * 2, {"m": base})


def test_gradients_that_overflow():
    base, experts, data, _ = classifiers()
    name = "classifier.weight"
    huge = spoiled(base, 3e38, name)
    huge[name][:] = 3e38
    with pytest.raises(merganser.InputError, match=r"not finite, for m on data\[0\]"):
        merganser.mismatch(base, experts, [data] * 2, {"m": huge})


@pytest.mark.slow
def test_fisher_of_other_weights(tmp_path):
    base, experts, data, _ = classifiers()
    paths = [tmp_path / "a", tmp_path / "b"]
    for model, path in zip(experts, paths, strict=True):
        model.save_pretrained(path)
    fishers = [
        merganser.fisher(model, data, model_path=path)
        for model, path in zip(experts, paths, strict=True)
    ]
    merganser.mismatch(base, paths, [data] * 2, {"m": base}, fishers=fishers)
    with pytest.raises(
        merganser.InputError, match=r"fishers\[0\] is the Fisher of other"
    ):
        merganser.mismatch(base, paths, [data] * 2, {"m": base}, fishers=fishers[::-1])


@pytest.mark.slow
def test_fisher_of_other_weights_than_a_module(tmp_path):
    """A module from a directory is known by it until its weights change."""
    base, experts, data, _ = classifiers()
    base.save_pretrained(tmp_path / "base")
    experts[0].save_pretrained(tmp_path / "expert")
    base, expert = (
        type(base).from_pretrained(tmp_path / name) for name in ("base", "expert")
    )
    own, other = (
        merganser.fisher(model, data, model_path=path)
        for model, path in ((base, tmp_path / "base"), (expert, tmp_path / "expert"))
    )

    def run(fishers, base_fisher):
        given = {"fishers": fishers, "base_fisher": base_fisher}
        merganser.mismatch(base, [expert], [data], {"m": base}, **given)

    run([other], own)
    with pytest.raises(
        merganser.InputError, match="^base_fisher is the Fisher of other weights"
    ):
        run([other], other)
    with pytest.raises(
        merganser.InputError, match=r"^fishers\[0\] is the Fisher of other weights"
    ):
        run([own], own)
    with pytest.raises(
        merganser.InputError, match="fisher belongs to a different model"
    ):
        merganser.Posterior.laplace(base, other)
    with torch.no_grad():
        base.classifier.bias.add_(1)  # trained further: in no directory
    own.tensor_hashes = other.tensor_hashes = {}  # as from files
    run([other], other)


def test_fisher_of_other_weights_in_memory(problem):
    """FisherResults know the tensors of modules without a directory."""
    of_models = {
        model: merganser.fisher(model, data, loss="regression")
        for model, data in zip(
            (problem.base, *problem.experts),
            (problem.data[0], *problem.data),
            strict=True,
        )
    }
    of_base, *fishers = of_models.values()
    named = {"m": problem.target}
    run(problem, named, fishers=fishers, base_fisher=of_base)
    message = r"^{} is the Fisher of other weights than its model's$"
    with pytest.raises(merganser.InputError, match=message.format(r"fishers\[0\]")):
        run(problem, named, fishers=fishers[::-1], base_fisher=of_base)
    with pytest.raises(merganser.InputError, match=message.format("base_fisher")):
        run(problem, named, fishers=fishers, base_fisher=fishers[0])
    # Tensors of another dtype, of other names and those of files are not compared.
    problem.experts = [copy.deepcopy(model).float() for model in problem.experts]
    run(problem, named, fishers=fishers[::-1], base_fisher=of_base)


def test_base_must_be_a_module(problem):
    problem.base = problem.base.state_dict()
    problem.experts = [model.state_dict() for model in problem.experts]
    with pytest.raises(merganser.InputError, match="base must be a module"):
        run(problem, {"m": problem.target})
