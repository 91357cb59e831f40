"""ProximalCallback's steps: against closed forms on ridge regression, and those of
small language models against their definition in float64."""

import itertools

import proximal_worker
import pytest
import torch
from hf_training import SPLITS, make_trainer
from merganser import FisherResult
from merganser.hf import ProximalCallback
from processes import run_ranks
from proximal_runs import (
    LR,
    check_gradients,
    check_parameters,
    clipped,
    pull,
    replay,
    run,
)
from torch import nn

pytestmark = pytest.mark.usefixtures("quick_collections")

# Splits of the 16 examples of a step.
SIZES = {
    "whole": {},
    "accumulated": {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 4},
}


class Ridge(nn.Module):
    """Mean over examples of 1/2 (y - x w)^2."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.randn(4, dtype=torch.float64))

    def forward(self, x, labels):
        z = x @ self.w
        return {"loss": 0.5 * (labels - z).square().mean(), "logits": z}


class Problem:
    """Data of ridge regression, with two Fishers of earlier tasks."""

    def __init__(self):
        torch.manual_seed(0)
        self.x = torch.randn(16, 4, dtype=torch.float64)
        self.y = torch.randn(16, dtype=torch.float64)
        self.model = Ridge()
        self.start = self.model.w.detach().clone()
        self.fishers = [
            FisherResult({"w": torch.rand(4, dtype=torch.float64)}, n, n, "exact")
            for n in (10, 30)
        ]

    def h(self, weight):
        return weight * sum(f.H["w"] for f in self.fishers)

    def minimiser(self, weight):
        """argmin 1/2 |y - X w|^2 + 1/2 |w - w_0|^2_H."""
        h = self.h(weight)
        gram = self.x.T @ self.x + h.diag()
        return torch.linalg.solve(gram, self.x.T @ self.y + h * self.start)

    def train(self, folder, callback, optimizer, **options):
        data = [{"x": x, "labels": y} for x, y in zip(self.x, self.y, strict=True)]
        options = {"logging_strategy": "no", "max_grad_norm": 0.0} | options
        options = {"per_device_train_batch_size": 16} | options
        make_trainer(folder, self.model, data, [callback], optimizer, **options).train()
        return self.model.w.detach()


@pytest.mark.slow
@pytest.mark.parametrize("decoupled", [False, True])
@pytest.mark.parametrize("split", ["whole", "accumulated"])
def test_gradient_descent_reaches_the_minimiser(decoupled, split, tmp_path):
    problem = Problem()
    callback = ProximalCallback(problem.fishers, 0.7, decoupled=decoupled)
    found = problem.train(
        tmp_path,
        callback,
        torch.optim.SGD(problem.model.parameters(), lr=0.4),
        num_train_epochs=150,
        lr_scheduler_type="constant",
        **SIZES[split],
    )
    torch.testing.assert_close(found, problem.minimiser(0.7), rtol=1e-8, atol=1e-8)
    value = 0.5 * (problem.h(0.7) * (found - problem.start).square()).sum() / 16
    assert abs(callback.value() - float(value)) < 1e-9


@pytest.mark.slow
def test_adam_reaches_the_minimiser_if_coupled(tmp_path):
    problem = Problem()
    found = problem.train(
        tmp_path,
        ProximalCallback(problem.fishers),
        torch.optim.Adam(problem.model.parameters(), lr=0.1),
        num_train_epochs=300,
        max_grad_norm=1.0,
    )
    torch.testing.assert_close(found, problem.minimiser(1.0), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("clip", [0.0, 0.2])
@pytest.mark.parametrize("split", ["whole", "accumulated"])
@pytest.mark.parametrize("decoupled", [False, True])
def test_adamw(decoupled, split, clip, tmp_path):
    """Adam's step with the clipped gradient, of loss plus term or, after
    theta -= lr c (theta - theta_0), of the loss; with the schedule's and the groups'
    learning rates."""
    problem = Problem()
    twin = nn.Parameter(problem.start.clone())

    def adamw(p):
        return torch.optim.AdamW([{"params": [p], "lr": 0.05}], lr=0.3)

    found = problem.train(
        tmp_path,
        ProximalCallback(problem.fishers, decoupled=decoupled),
        adamw(problem.model.w),
        num_train_epochs=20,
        lr_scheduler_type="linear",
        max_grad_norm=clip,
        **SIZES[split],
    )
    optimizer = adamw(twin)
    for step in range(20):
        lr = optimizer.param_groups[0]["lr"] = 0.05 * (1 - step / 20)
        term = problem.h(1.0) / 16 * (twin.detach() - problem.start)
        gradient = problem.x.T @ (problem.x @ twin.detach() - problem.y) / 16
        if decoupled:
            with torch.no_grad():
                twin -= lr * term
        else:
            gradient = gradient + term
        (twin.grad,) = clipped([gradient], clip)
        optimizer.step()
    torch.testing.assert_close(found, twin.detach(), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("clip", [0.0, 0.5])
@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("name", ["bert", "gpt2"])
def test_adds_its_gradient_before_clipping(name, split, clip, bf16, tmp_path):
    """Also where Trainer sums the means of micro-batches (BERT), and in a last step
    with fewer of them."""
    options = {"name": name, "count": 20, "bf16": bf16}
    whole, without = (
        run(tmp_path, proximal=False, max_grad_norm=0.0, **options, **SPLITS[s])[0]
        for s in ("1x8", split)
    )
    found, _ = run(tmp_path, max_grad_norm=clip, **options, **SPLITS[split])
    assert not found.model._forward_hooks
    term = pull(found.model, 20)
    check_gradients(found.steps, without.steps, whole.steps, term, clip)


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("clip", [0.0, 0.5])
@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("name", ["bert", "gpt2"])
def test_decoupled_is_outside_of_the_gradient(name, split, clip, bf16, tmp_path):
    """Its steps are those of the definition, also the last one, which is shorter."""
    options = {"name": name, "count": 20, "bf16": bf16, "max_grad_norm": clip}
    options |= SPLITS[split] | {"lr": LR}
    without, _ = run(tmp_path, proximal=False, **options)
    found, _ = run(tmp_path, decoupled=True, **options)
    for a, b in zip(found.steps[0], without.steps[0], strict=True):
        assert torch.equal(a, b)
    expected = replay(SPLITS[split], name, clip, 20)
    check_parameters(found.parameters(), expected, name, 1.5e-3 if bf16 else 1e-6)


@pytest.mark.slow
def test_two_processes(tmp_path):
    """DDP: 2 x 4 examples per step equal one process' 8."""
    run_ranks("proximal_worker.py", tmp_path)
    ranks = [torch.load(tmp_path / f"rank{rank}.pt") for rank in (0, 1)]
    for name in ("bert", "gpt2"):
        whole, _ = run(
            tmp_path / "one",
            proximal=False,
            name=name,
            max_grad_norm=0.0,
            **SPLITS["1x8"],
        )
        term = pull(whole.model)
        for found in ranks:
            for size in ("plain", "bf16", "accumulated"):
                without = found[size, name]
                for clip in (0.0, 0.5):
                    steps = found[size, name, clip]
                    check_gradients(steps, without, whole.steps, term, clip)
    for size, split in proximal_worker.SIZES.items():
        for name, clip in itertools.product(("bert", "gpt2"), (0.0, 0.5)):
            expected = replay(split, name, clip, processes=2)
            for found in ranks:
                parameters = found["decoupled", size, name, clip]
                tolerance = 1.5e-3 if size == "bf16" else 1e-6
                check_parameters(parameters, expected, name, tolerance)
