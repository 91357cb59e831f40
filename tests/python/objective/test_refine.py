"""merganser.refine on regressions in closed form, and on a small BERT."""

import copy
import functools
import itertools
import json
import math
import re

import architectures
import merganser
import pytest
import quadratic
import tiny_models
import torch
from merganser._objective import adamw
from merganser._objective.run import Run
from merganser._objective.states import Carrier
from merganser.report import plot_refinement


@pytest.fixture
def problem():
    return quadratic.problem()


def run(problem, optimum=None, **options):
    """Trains on the problem's examples, to which the closed form applies. One more
    example per task is held out, and is best at an optimum (None: the target)."""
    optimum = problem.target.weight if optimum is None else optimum
    settings = {
        "weights": problem.weights,
        "fishers": problem.fishers,
        "base_fisher": problem.base_fisher,
        "loss": "regression",
        "held_out": 0.01,
        "num_examples": [len(x) for x, _ in problem.sets],
    }
    data = [
        with_held_out(*examples, optimum.detach(), seed)
        for seed, examples in enumerate(problem.sets)
    ]
    return merganser.refine(
        problem.arithmetic,
        problem.base,
        problem.experts,
        data,
        **(settings | options),
    )


def with_held_out(x, y, weight, seed):
    """Batches with an example at the place that refine holds out with this seed."""
    generator = torch.Generator().manual_seed(seed)
    place = int(torch.randperm(len(x) + 1, generator=generator)[0])
    extra = torch.full((1, x.shape[1]), 100.0).to(x)
    x = torch.cat([x[:place], extra, x[place:]])
    y = torch.cat([y[:place], extra @ weight.T.to(x), y[place:]])
    return quadratic.batches(x, y, 4)


def objective(problem, weight):
    away = weight - problem.base.weight.detach()
    total = 0.5 * (problem.h0 * away.square()).sum()
    for a, (x, y) in zip(problem.weights, problem.sets, strict=True):
        total = total + a * 0.5 * (y - x @ weight.T).square().sum()
    return total


def test_newton_takes_one_step_to_the_target(problem):
    found = run(problem, solver="newton", damping=0, steps=1)
    target = problem.target.weight
    assert (found.state_dict["weight"] - target).norm() <= 1e-10 * target.norm()
    steps = found.report["steps"]
    assert [step["step"] for step in steps] == [0, 1]
    for step, model in zip(steps, (problem.arithmetic, problem.target), strict=True):
        expected = float(objective(problem, model.weight.detach()))
        assert step["objective"] == pytest.approx(expected, rel=1e-10)
    assert found.report["kept_step"] == 1 and found.report["proximal_term"]


def test_newton_raises_the_damping_until_the_objective_falls(problem):
    """With a tenth of the curvature a full step overshoots. On a diagonal quadratic,
    each accepted step is -g / (D + damping * quantile)."""
    for fisher in (*problem.fishers, problem.base_fisher):
        fisher.diagonal["weight"] /= 10
    h0 = problem.h0
    problem.h0 = h0 / 10  # the proximal term's
    start = problem.arithmetic.weight.detach().clone().requires_grad_()
    g = torch.autograd.grad(objective(problem, start), start)[0]
    d = problem.h0 + sum(
        a * h / 10 for a, h in zip(problem.weights, problem.h, strict=True)
    )
    scale = float(d.flatten().sort().values[math.ceil(0.999 * d.numel()) - 1])
    before = float(objective(problem, start).detach())
    rejected, damping = 0, 0.5
    while True:
        expected = start.detach() - g / (d + damping * scale)
        if float(objective(problem, expected)) < before:
            break
        rejected, damping = rejected + 1, 4 * damping
    assert rejected > 0
    found = run(problem, optimum=expected, solver="newton", damping=0.5, steps=1)
    step = found.report["steps"][1]
    assert (step["rejected"], step["damping"], step["lr"]) == (rejected, damping, 1)
    weight = found.state_dict["weight"]
    assert (weight - expected).norm() <= 1e-10 * expected.norm()


def test_the_report_says_why_a_run_stopped(problem, tmp_path):
    options = {"solver": "newton", "damping": 0, "steps": 9}
    file = tmp_path / "checkpoint.pt"
    found = run(problem, checkpoint=file, **options).report
    assert found["completed"] and found["stopped"] == "no step lowers the objective"
    assert 1 < len(found["steps"]) < 10
    again = run(problem, checkpoint=file, **options).report
    assert again["steps"] == found["steps"] and again["stopped"] == found["stopped"]
    assert run(problem, **options | {"steps": 1}).report["stopped"] is None


def test_newton_with_fishers_at_the_current_point(problem):
    found = run(
        problem, solver="newton", damping=0, steps=1, refresh=True, fishers=None
    )
    target = problem.target.weight
    assert (found.state_dict["weight"] - target).norm() <= 1e-10 * target.norm()


@pytest.mark.parametrize("groups", ["global", "tensor"])
def test_subspace_reaches_the_minimum_in_the_span(problem, groups):
    """The Fisher of a Gaussian is the Hessian, with all off-diagonals."""
    columns = torch.stack(
        [(e.weight - problem.base.weight).detach().flatten() for e in problem.experts],
        1,
    )
    start = problem.arithmetic.weight.detach()
    w = torch.zeros(2, dtype=torch.float64, requires_grad=True)

    def at(w):
        return objective(problem, start + (columns @ w).view_as(start))

    gradient = torch.autograd.grad(at(w), w)[0]
    hessian = torch.autograd.functional.hessian(at, torch.zeros(2).double())
    expected = start + (columns @ torch.linalg.solve(hessian, -gradient)).view_as(start)
    options = {"optimum": expected, "damping": 0, "shrink": 1, "groups": groups}
    found = run(problem, steps=1, **options)
    assert (found.state_dict["weight"] - expected).norm() <= 1e-10 * expected.norm()
    # It is the optimum: another step finds nothing better.
    again = run(problem, steps=3, **options)
    last = again.report["steps"][-1]["objective"]
    assert last == pytest.approx(found.report["steps"][-1]["objective"], rel=1e-12)


@pytest.mark.slow
def test_adamw_approaches_the_target(problem):
    found = run(problem, solver="adamw", lr=0.05, steps=200, batch_size=64)
    objectives = [s["objective"] for s in found.report["steps"]]
    best = float(objective(problem, problem.target.weight.detach()))
    assert min(objectives) - best < 0.05 * (objectives[0] - best)


@pytest.mark.parametrize("steps", [4, 7, 10])
def test_adamw_numbers_steps_and_not_evaluations(problem, steps):
    shown = []

    def progress(done, total, text):
        if text.startswith("held-out objective"):
            shown.append((done, total))

    found = run(problem, solver="adamw", lr=0.01, steps=steps, progress=progress)
    expected = [0, *range(5, steps, 5), steps]
    assert [step["step"] for step in found.report["steps"]] == expected
    assert shown == [(step, steps) for step in expected]
    assert found.report["kept_step"] == steps
    assert repr(found) == f"RefineResult(adamw, {steps} steps, kept step {steps})"


# Passes over the training examples in a step that lowers the objective.
PASSES = {
    "newton": 3,  # the gradient, and the values before and after
    "refreshed": 4,  # the Fishers first
    "subspace": 3,  # the sums in the span, and the values
    "adamw": 1,  # the value after a round
}


@pytest.mark.parametrize("name", PASSES)
def test_progress_within_a_step(name, problem):
    """After each batch of each pass, with the number of the last step."""
    options = {"solver": name, "damping": 0, "steps": 1}
    if name == "refreshed":
        options |= {"solver": "newton", "refresh": True, "fishers": None}
    elif name == "adamw":
        options = {"solver": "adamw", "lr": 0.01, "steps": 1}
    shown = []
    found = run(problem, progress=lambda *call: shown.append(call), **options)
    assert found.report["steps"][1]["rejected"] == 0
    passes = []  # number of the last step, calls and examples
    calls = done = 0
    for step, steps, text in shown:
        assert steps == 1
        if text.startswith("held-out objective"):
            passes.append((step, text.split()[1]))
            continue
        calls += 1
        previous, done = done, int(text.split()[0])
        total = int(text.removeprefix(f"{done} of ").removesuffix(" examples"))
        assert previous < done <= total
        if done == total:
            passes.append((step, calls, total))
            calls = done = 0
    train, held_out = (0, 7, 25), (0, 2, 2)
    start = [train, held_out, train, (0, "objective")]
    assert passes == [*start, *[train] * PASSES[name], held_out, (1, "objective")]


def test_resuming_after_a_rejected_round(problem, tmp_path, monkeypatch):
    """The second step of the first round is rejected, so that the round leaves
    mini-batches."""

    def refine(**more):
        options = {"solver": "adamw", "lr": 0.01, "steps": 15, "batch_size": 4}
        results = iter([True, False])
        with monkeypatch.context() as patch:
            if "resumed" not in more:
                patch.setattr(adamw, "are_finite", lambda _: next(results, True))
            more.pop("resumed", None)
            return run(problem, **options | more)

    file = tmp_path / "checkpoint.pt"
    refine(checkpoint=file, progress=after_two("adamw"))
    found = refine(checkpoint=file, resumed=True)
    whole = refine()
    assert [s["rejected"] for s in whole.report["steps"][1:]] == [1, 0, 0]
    for step, expected in zip(
        found.report["steps"], whole.report["steps"], strict=True
    ):
        assert step | {"seconds": 0} == expected | {"seconds": 0}


def test_more_steps_of_adamw_than_before(problem, tmp_path):
    """A resumed run takes the mini-batches that the steps before left."""
    options = {"solver": "adamw", "lr": 0.01, "batch_size": 4}
    file = tmp_path / "checkpoint.pt"
    for steps in (7, 12):
        found = run(problem, steps=steps, checkpoint=file, **options)
    assert [step["step"] for step in found.report["steps"]] == [0, 5, 7, 10, 12]
    assert found.report["resumed_after"] == 7
    whole = run(problem, steps=12, **options)
    assert torch.equal(found.state_dict["weight"], whole.state_dict["weight"])
    message = "is the checkpoint of 12 steps: expected steps of at least 12, got 11"
    with pytest.raises(merganser.InputError, match=message):
        run(problem, steps=11, checkpoint=file, **options)


def test_resuming_compares_the_code_of_a_loss(problem, tmp_path):
    def squares(output, labels):
        return (output - labels).square().sum(1) / 2

    def weighted(output, labels):
        return (output - labels).square().sum(1)

    options = {"solver": "adamw", "steps": 5, "checkpoint": tmp_path / "checkpoint.pt"}
    run(problem, loss=squares, **options)
    assert run(problem, loss=squares, **options).report["resumed_after"] == 5
    with pytest.raises(merganser.InputError, match="another run, which differs in los"):
        run(problem, loss=weighted, **options)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_adamw_adds_up_steps_below_half_precision(problem, dtype, tmp_path):
    """A step of 2e-4 is below half an ulp of most of the weights."""
    options = {"solver": "adamw", "lr": 2e-4, "batch_size": 64}
    half = copy.copy(problem)
    half.base, half.arithmetic, *half.experts = (
        copy.deepcopy(model).to(dtype)
        for model in (problem.base, problem.arithmetic, *problem.experts)
    )
    half.sets = [(x.to(dtype), y.to(dtype)) for x, y in problem.sets]

    def decrease(found):
        first, *_, last = found.report["steps"]
        return first["objective"] - last["objective"]

    found = run(half, steps=100, **options)
    assert found.state_dict["weight"].dtype == dtype
    expected = decrease(run(problem, steps=100, **options))
    assert decrease(found) == pytest.approx(expected, rel=0.1)
    # A checkpoint has the float32 copies.
    file = tmp_path / "checkpoint.pt"
    for steps in (50, 100):
        again = run(half, steps=steps, checkpoint=file, **options)
    for step, one in zip(again.report["steps"], found.report["steps"], strict=True):
        assert step | {"seconds": 0} == one | {"seconds": 0}


def perturbed(model, seed, size):
    torch.manual_seed(seed)
    model = copy.deepcopy(model)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(size * torch.randn_like(p))
    return model


LENGTHS = [[5, 2, 9, 4, 7, 3, 8, 6]] * 3


class Classifiers:
    """Small BERT models; the data's labels are those that a fourth one predicts."""

    def __init__(self):
        self.base = architectures.make("bert").eval()
        self.experts = [perturbed(self.base, seed, 0.03) for seed in (1, 2)]
        teacher = copy.deepcopy(self.base).eval()
        state = teacher.state_dict()
        for expert in self.experts:
            for name, x in expert.state_dict().items():
                if x.is_floating_point():
                    state[name] += 0.7 * (x - self.base.state_dict()[name])
        teacher.load_state_dict(state)
        self.data = []
        for t in (0, 1):
            generator = torch.Generator().manual_seed(20 + t)
            batches = [
                tiny_models.batch(row, pad_id=0, generator=generator) for row in LENGTHS
            ]
            for batch in batches:
                batch["labels"] = teacher(
                    batch["input_ids"], batch["attention_mask"]
                ).logits.argmax(1)
            self.data.append(batches)

    def refine(self, model=None, **options):
        model = self.base.state_dict() if model is None else model
        return merganser.refine(model, self.base, self.experts, self.data, **options)


@pytest.fixture(scope="module")
def shared():
    return Classifiers()


SOLVERS = {
    "subspace": {"solver": "subspace", "steps": 3},
    "newton": {"solver": "newton", "refresh": True, "steps": 3},
    "adamw": {"solver": "adamw", "lr": 3e-3, "steps": 20, "batch_size": 8},
}


@pytest.fixture(scope="module")
def whole(shared):
    """Complete runs by solver and targets, each once for all tests."""

    @functools.cache
    def run(solver, targets="labels"):
        return shared.refine(targets=targets, **SOLVERS[solver])

    return run


def kept(report):
    (step,) = (s for s in report["steps"] if s["step"] == report["kept_step"])
    return step


@pytest.mark.slow
@pytest.mark.parametrize("targets", ["labels", "predictions"])
@pytest.mark.parametrize("solver", SOLVERS)
def test_every_solver_lowers_the_objective(solver, targets, shared, whole):
    found = whole(solver, targets)
    report = found.report
    steps = report["steps"]
    assert min(s["objective"] for s in steps[1:]) < steps[0]["objective"]
    held = [s["held_out"] for s in steps]
    assert kept(report)["held_out"] == min(held) <= held[0]
    expected = {"groups": "block", "shrink": 0.9} if solver == "subspace" else {}
    for option in ("groups", "shrink"):
        assert report[option] == expected.get(option)
    assert report["targets"] == targets and not report["proximal_term"]
    names = "num_examples", "num_examples_used", "num_examples_held_out"
    assert [[task[k] for k in names] for task in report["tasks"]] == [[24, 24, 5]] * 2
    json.dumps(report, allow_nan=False)
    # The state dict is the kept step's: its held-out objective is that of a new start.
    options = SOLVERS[solver] | {"targets": targets, "steps": 1}
    again = shared.refine(found.state_dict, **options)
    assert again.report["steps"][0]["held_out"] == pytest.approx(min(held), rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("solver", SOLVERS)
def test_predictions_need_no_labels(solver, shared, whole):
    found = whole(solver, "predictions")
    unlabeled = copy.copy(shared)
    unlabeled.data = [
        [{k: v for k, v in b.items() if k != "labels"} for b in batches]
        for batches in shared.data
    ]
    bare = unlabeled.refine(targets="predictions", **SOLVERS[solver])
    for name, x in found.state_dict.items():
        assert torch.equal(x, bare.state_dict[name])


@pytest.mark.slow
def test_a_single_expert_with_predictions_is_its_own_optimum(shared):
    """At theta_1 the experts' predictions are the model's, so no step helps."""
    found = merganser.refine(
        shared.experts[0],
        shared.base,
        shared.experts[:1],
        shared.data[:1],
        targets="predictions",
        steps=2,
    )
    steps = found.report["steps"]
    assert steps[-1]["objective"] == pytest.approx(steps[0]["objective"], rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("solver", SOLVERS)
def test_steps_that_are_not_finite_are_rejected(solver, shared):
    options = SOLVERS[solver] | {"lr": 1e38 if solver == "adamw" else 1e300}
    found = shared.refine(**options)
    report = found.report
    assert sum(step.get("not_finite", 0) for step in report["steps"]) > 0
    if solver == "adamw":  # each rejected round halves it
        assert [step["lr"] for step in report["steps"][1:3]] == [1e38, 5e37]
    assert all(bool(x.isfinite().all()) for x in found.state_dict.values())
    held = [s["held_out"] for s in report["steps"] if s["held_out"] is not None]
    assert held[0] >= min(held)
    json.dumps(report, allow_nan=False)
    (axis,) = plot_refinement(report).axes
    held = sum(task["num_examples_held_out"] for task in report["tasks"])
    labels = [line.get_label() for line in axis.get_lines()]
    assert f"{held} examples held out" in labels


@pytest.mark.slow
@pytest.mark.parametrize("solver", SOLVERS)
def test_a_step_whose_held_out_objective_is_not_finite_is_undone(
    solver, shared, monkeypatch
):
    class NanAfterTheStart:
        def __init__(self, objective):
            found = objective.value_and_losses()
            self.values = itertools.chain([found], itertools.repeat((nan, nan)))
            self.value_and_losses = functools.partial(next, self.values)

    def init(self, carrier, solver, train, held_out, *rest):
        original(self, carrier, solver, train, NanAfterTheStart(held_out), *rest)

    nan, original = math.nan, Run.__init__
    monkeypatch.setattr(Run, "__init__", init)
    found = shared.refine(**SOLVERS[solver])
    assert found.report["kept_step"] == 0
    steps = found.report["steps"][1:]
    assert all(s["held_out"] is None and s["not_finite"] == 1 for s in steps)
    if solver != "adamw":
        assert found.report["stopped"] == "the objective is not finite"
        assert len(steps) == 1
    json.dumps(found.report, allow_nan=False)


EVALUATED = {"subspace": [1, 2], "newton": [1, 2], "adamw": [5, 10]}


def after_two(solver):
    """Progress that presses Ctrl-C after two evaluations."""

    def stop(done, total, text):
        if done == EVALUATED[solver][-1]:
            raise KeyboardInterrupt

    return stop


@pytest.mark.slow
@pytest.mark.parametrize("solver", SOLVERS)
def test_ctrl_c_keeps_the_best_step(solver, shared, whole):
    complete = whole(solver).report
    found = shared.refine(**SOLVERS[solver], progress=after_two(solver))
    assert not found.report["completed"] and complete["completed"]
    steps = found.report["steps"]
    assert [s["step"] for s in steps] == [0, *EVALUATED[solver]]
    for step, expected in zip(steps, complete["steps"], strict=False):
        assert step["held_out"] == expected["held_out"]
    assert kept(found.report) == min(steps, key=lambda step: step["held_out"])


@pytest.mark.slow
def test_ctrl_c_while_the_best_step_is_copied(shared, monkeypatch):
    """The step before is kept, with its number."""
    copies = iter([False, True])  # of the start, and of the first step

    def snapshot(carrier):
        if next(copies):
            raise KeyboardInterrupt
        return original(carrier)

    original = Carrier.snapshot
    monkeypatch.setattr(Carrier, "snapshot", snapshot)
    found = shared.refine(**SOLVERS["newton"])
    assert not found.report["completed"]
    assert [s["step"] for s in found.report["steps"]] == [0]
    assert found.report["kept_step"] == 0
    for name, x in shared.base.state_dict().items():
        assert torch.equal(x, found.state_dict[name])


@pytest.mark.slow
def test_ctrl_c_while_a_checkpoint_is_written(shared, tmp_path, monkeypatch):
    """The checkpoint of the step before remains, and nothing else."""

    def save(content, path):
        original(content, path)
        if len(content["state"]["steps"]) == 2:
            raise KeyboardInterrupt

    original = torch.save
    file = tmp_path / "checkpoint.pt"
    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", save)
        found = shared.refine(**SOLVERS["subspace"], checkpoint=file)
    assert len(found.report["steps"]) == 2 and not found.report["completed"]
    assert list(tmp_path.iterdir()) == [file]
    again = shared.refine(**SOLVERS["subspace"], checkpoint=file)
    assert again.report["resumed_after"] == 0


@pytest.mark.slow
@pytest.mark.parametrize("solver", SOLVERS)
def test_resuming_gives_the_same_bits(solver, shared, whole, tmp_path):
    file = tmp_path / "checkpoint.pt"
    complete = whole(solver)
    stop = after_two(solver)
    shared.refine(**SOLVERS[solver], checkpoint=file, progress=stop)
    found = shared.refine(**SOLVERS[solver], checkpoint=file)
    assert found.report["resumed_after"] == EVALUATED[solver][-1]
    for name, x in complete.state_dict.items():
        assert torch.equal(x, found.state_dict[name]), name
    for step, expected in zip(
        found.report["steps"], complete.report["steps"], strict=True
    ):
        assert step | {"seconds": 0} == expected | {"seconds": 0}
    # A finished run is read back; another run is refused.
    again = shared.refine(**SOLVERS[solver], checkpoint=file)
    assert torch.equal(
        again.state_dict["classifier.bias"], complete.state_dict["classifier.bias"]
    )
    with pytest.raises(
        merganser.InputError, match="another run, which differs in seed"
    ):
        shared.refine(**SOLVERS[solver], checkpoint=file, seed=1)
    with pytest.raises(merganser.InputError, match="which differs in loss: remove"):
        shared.refine(**SOLVERS[solver], checkpoint=file, loss="classification")
    with pytest.raises(merganser.InputError, match="differs in the model's weights"):
        shared.refine(shared.experts[0], **SOLVERS[solver], checkpoint=file)
    file.write_bytes(b"nothing")
    with pytest.raises(merganser.InputError, match="is not a checkpoint of a refine"):
        shared.refine(**SOLVERS[solver], checkpoint=file)


@pytest.mark.slow
def test_the_module_is_as_before(shared):
    base = copy.deepcopy(shared.base).train()
    base.bert.encoder.eval()
    base.classifier.bias.grad = torch.ones(3)
    before = copy.deepcopy(base.state_dict())
    modes = [module.training for module in base.modules()]

    def fail(done, total, text):
        raise ZeroDivisionError

    for options in SOLVERS.values():
        arguments = (before, base, shared.experts, shared.data)
        merganser.refine(*arguments, **options | {"steps": 1})
        with pytest.raises(ZeroDivisionError):
            merganser.refine(*arguments, **options, progress=fail)
        assert all(torch.equal(x, before[n]) for n, x in base.state_dict().items())
        assert [module.training for module in base.modules()] == modes
        assert torch.equal(base.classifier.bias.grad, torch.ones(3))
        assert base.classifier.weight.grad is None
        assert not any(p._backward_hooks for p in base.parameters())


@pytest.mark.slow
def test_the_model_may_be_the_module(shared):
    """base as a state dict, and the start as the module that runs."""
    expected = shared.refine(steps=1)
    model = copy.deepcopy(shared.base)
    found = merganser.refine(
        model, shared.base.state_dict(), shared.experts, shared.data, steps=1
    )
    for name, x in expected.state_dict.items():
        assert torch.equal(x, found.state_dict[name])
    model.load_state_dict(found.state_dict)


def test_plot_and_report(whole, tmp_path):
    found = whole("adamw")
    found.plot(tmp_path / "steps.png")
    assert (tmp_path / "steps.png").read_bytes()[:4] == b"\x89PNG"
    found.save_report(tmp_path / "report.json")
    assert json.loads((tmp_path / "report.json").read_text()) == found.report
    with pytest.raises(merganser.InputError, match="cannot be written: No such file"):
        found.save_report(tmp_path / "missing" / "report.json")
    assert math.isfinite(found.report["seconds"])
    assert f"kept step {found.report['kept_step']}" in repr(found)


@pytest.mark.slow
def test_language_model():
    """Sequences of labels, with a tied output layer."""
    base = architectures.make("gpt2_lm")
    experts = [perturbed(base, seed, 0.02) for seed in (1, 2)]
    data, _ = architectures.batches("gpt2_lm", [[5, 6, 9], [4, 8, 7], [6, 6, 8]])
    for batch in data:
        batch["labels"] = batch["input_ids"]
    for targets in ("labels", "predictions"):
        found = merganser.refine(base, base, experts, [data] * 2, targets=targets)
        steps = found.report["steps"]
        assert steps[-1]["objective"] < steps[0]["objective"]
        tied = found.state_dict["lm_head.weight"]
        assert torch.equal(tied, found.state_dict["transformer.wte.weight"])


# Bad input: one sentence each

BAD = {
    "solver": ({"solver": "sgd"}, "solver must be one of subspace, newton, adamw"),
    "targets": ({"targets": "teacher"}, "targets must be one of labels, predictions"),
    "groups": ({"groups": "layer"}, "groups must be one of global, block, tensor"),
    "steps": ({"steps": 0}, "steps must be at least 1"),
    "lr": ({"lr": -1}, "lr must be a number of at least 0, not -1"),
    "shrink": ({"shrink": 2}, "shrink must be a number of at least 0 and at most 1"),
    "held_out": ({"held_out": 1}, r"held_out must be between 0 and 1 \(exclusive\)"),
    "held_out 0": ({"held_out": 0}, r"held_out must be between 0 and 1 \(exclusive\)"),
    "no Fisher": ({"solver": "newton"}, "solver='newton' needs fishers, or refresh"),
    "refresh": ({"refresh": True}, "refresh applies to newton, not to subspace"),
    "groups of newton": (
        {"solver": "newton", "groups": "block"},
        "groups applies to subspace, not to newton",
    ),
    "shrink of adamw": (
        {"solver": "adamw", "shrink": 0.9},
        "shrink applies to subspace, not to adamw",
    ),
    "damping of adamw": (
        {"solver": "adamw", "damping": 1},
        "damping applies to subspace and newton, not to adamw",
    ),
    "weights": ({"weights": [1.0]}, "weights must have 2 items"),
    "weights of 0": (
        {"weights": 0, "solver": "adamw"},
        "weights must be finite numbers, positive, not 0",
    ),
    "weights beyond float32": (
        {"weights": [1.0, 1e300], "solver": "adamw"},
        r"weights overflow float32: 1e\+300 times the \d+ examples of data\[1\]",
    ),
    "predictions": (
        {"targets": "predictions", "loss": lambda output, labels: output.logits[:, 0]},
        "needs the distribution of the labels",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name, shared):
    options, message = BAD[name]
    with pytest.raises(merganser.InputError, match=message) as caught:
        shared.refine(**options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -1.0])
@pytest.mark.parametrize("label", ["base_fisher", "fishers[1]"])
def test_fisher_with_bad_values(label, value, problem):
    fisher = problem.base_fisher if label == "base_fisher" else problem.fishers[1]
    fisher.diagonal["weight"][1, 2] = value
    message = f"{label}: the values of tensor 'weight' must be finite and not negative"
    with pytest.raises(merganser.InputError, match=re.escape(message)):
        run(problem, solver="newton", steps=1)


def test_bad_models_and_data(shared):
    start = shared.base.state_dict()

    def refused(message, model=start, data=shared.data, **options):
        with pytest.raises(merganser.InputError, match=message):
            merganser.refine(model, shared.base, shared.experts, data, **options)

    name = "classifier.bias"
    refused("model: tensor 'classifier.bias' has shape", start | {name: torch.ones(4)})
    refused("values that are not finite", start | {name: torch.full((3,), torch.nan)})
    refused("model lacks tensors of base", {name: start[name]})
    refused(
        r"data\[0\] has no labels, which targets='labels' needs",
        data=[
            [{k: b[k] for k in ("input_ids", "attention_mask")} for b in batches]
            for batches in shared.data
        ],
    )
    refused(r"data\[0\] has 2 examples, fewer than the model's 3 classes", limit=2)
    few = {k: x[:3] for k, x in shared.data[0][0].items()}
    refused(
        r"data\[0\]: expected at least 3 examples to train on, one for each class, got "
        "3 of which 1 are held out",
        data=[[few]] * 2,
        targets="predictions",
    )
    refused(
        "the objective of the start is not finite",
        start | {"classifier.weight": torch.full((3, 16), 3e38)},
    )
    # The pooler's large input times a large gradient of its output.
    with torch.no_grad():
        spoiled = {name: x.clone() for name, x in start.items()}
        layer = max(
            name.rsplit(".", 1)[0]
            for name in start
            if name.endswith(".output.LayerNorm.weight") and "attention" not in name
        )
        for kind in ("weight", "bias"):
            spoiled[f"{layer}.{kind}"] *= 1e25
        spoiled["bert.pooler.dense.weight"] *= 1e-25
        spoiled["classifier.weight"] *= 1e25
    refused(
        "the gradient of the objective of the start is not finite: the model's "
        "gradients, or weights times examples, [0-9]+ in total, overflow float32",
        spoiled,
    )


@pytest.mark.slow
def test_refuses_fishers_of_other_weights(shared, tmp_path):
    paths = [tmp_path / "one", tmp_path / "two"]
    for model, path in zip(shared.experts, paths, strict=True):
        model.save_pretrained(path)
    fishers = [
        merganser.fisher(model, data, model_path=path)
        for model, data, path in zip(shared.experts, shared.data, paths, strict=True)
    ]

    def refine(**options):
        start = shared.base.state_dict()
        return merganser.refine(start, shared.base, paths, shared.data, **options)

    newton = {"solver": "newton", "steps": 1}
    refine(fishers=fishers, **newton)
    message = r"fishers\[0\] is the Fisher of other weights than its model's"
    with pytest.raises(merganser.InputError, match=message):
        refine(fishers=fishers[::-1], **newton)
    base = copy.deepcopy(shared.base)
    base.save_pretrained(tmp_path / "base")
    base = type(base).from_pretrained(tmp_path / "base")
    with pytest.raises(merganser.InputError, match="base_fisher is the Fisher of oth"):
        merganser.refine(
            *(base, base, shared.experts, shared.data), base_fisher=fishers[0]
        )


def test_refuses_an_expert_whose_predictions_overflow(shared):
    huge = torch.full((3, 16), 3e38)
    experts = [
        shared.experts[0],
        shared.experts[1].state_dict() | {"classifier.weight": huge},
    ]
    arguments = (shared.base.state_dict(), shared.base, experts, shared.data)
    message = r"^experts\[1\]: its predictions on data\[1\] are not finite$"
    with pytest.raises(merganser.InputError, match=message):
        merganser.refine(*arguments, targets="predictions")


@pytest.mark.parametrize("solver", SOLVERS)
def test_refuses_a_wrong_expert(solver, shared):
    wrong = shared.experts[1].state_dict()
    for value, message in (
        (torch.ones(4), r"experts\[1\]: tensor 'classifier.bias' has shape \[4\]"),
        (torch.full((3,), torch.nan), "values that are not finite"),
    ):
        experts = [shared.experts[0], wrong | {"classifier.bias": value}]
        with pytest.raises(merganser.InputError, match=message):
            merganser.refine(
                *(shared.base.state_dict(), shared.base, experts, shared.data),
                **SOLVERS[solver],
            )
