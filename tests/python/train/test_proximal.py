"""ProximalCallback against closed forms on ridge regression, and step by step."""

import merganser
import pytest
import torch
from hf_training import SPLITS, bert, examples, make_trainer
from merganser import FisherResult, InputError, Posterior
from merganser.hf import FisherCallback, ProximalCallback
from processes import run_ranks
from proximal_runs import (
    LR,
    check_gradients,
    displaced,
    draw_fisher,
    pull,
    run,
)
from torch import nn

pytestmark = pytest.mark.usefixtures("quick_collections")


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
    sizes = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 4}
    found = problem.train(
        tmp_path,
        callback,
        torch.optim.SGD(problem.model.parameters(), lr=0.4),
        num_train_epochs=150,
        lr_scheduler_type="constant",
        **(sizes if split == "accumulated" else {}),
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


def test_adamw_decoupled(tmp_path):
    """The recursion theta -= lr c (theta - theta_0) + Adam's step, with the schedule's
    and the groups' learning rates."""
    problem = Problem()
    twin = nn.Parameter(problem.start.clone())

    def adamw(p):
        return torch.optim.AdamW([{"params": [p], "lr": 0.05}], lr=0.3)

    found = problem.train(
        tmp_path,
        ProximalCallback(problem.fishers, decoupled=True),
        adamw(problem.model.w),
        num_train_epochs=20,
        lr_scheduler_type="linear",
    )
    optimizer = adamw(twin)
    for step in range(20):
        lr = optimizer.param_groups[0]["lr"] = 0.05 * (1 - step / 20)
        twin.grad = problem.x.T @ (problem.x @ twin.detach() - problem.y) / 16
        with torch.no_grad():
            twin -= lr * problem.h(1.0) / 16 * (twin - problem.start)
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


def test_dropout_is_as_without_it(tmp_path):
    """The measurement in the first forward pass leaves the random state."""
    models = []
    for weight in (None, 0.0):
        model = bert(dropout=True)
        callbacks = []
        if weight is not None:
            callbacks = [ProximalCallback(draw_fisher(model), weight)]
        options = {"learning_rate": 1e-2, **SPLITS["2x4"]}
        make_trainer(tmp_path, model, examples(20), callbacks, **options).train()
        models.append(model.state_dict())
    assert all(torch.equal(models[0][n], x) for n, x in models[1].items())


@pytest.mark.parametrize("clip", [0.0, 0.5])
@pytest.mark.parametrize("split", SPLITS)
def test_decoupled_is_outside_of_the_gradient(split, clip, tmp_path):
    options = SPLITS[split] | {"max_grad_norm": clip, "max_steps": 1, "lr": LR}
    without, _ = run(tmp_path, proximal=False, **options)
    found, _ = run(tmp_path, decoupled=True, **options)
    for a, b in zip(found.steps[0], without.steps[0], strict=True):
        assert torch.equal(a, b)
    parts = (found.parameters(), without.parameters(), pull(bert()))
    for ours, plain, t in zip(*parts, strict=True):
        torch.testing.assert_close(ours, plain - LR * t, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("decoupled", [False, True])
def test_without_weight_training_is_as_without_it(decoupled, tmp_path):
    models = []
    for callbacks in (False, True):
        model = bert(dropout=True)
        callback = ProximalCallback(draw_fisher(model), 0.0, decoupled=decoupled)
        options = {"learning_rate": 1e-2, "num_train_epochs": 2}
        make_trainer(
            tmp_path, model, examples(20), [callback] * callbacks, **options
        ).train()
        models.append(model.state_dict())
    assert all(torch.equal(models[0][n], x) for n, x in models[1].items())


def test_fishers_add_up(tmp_path):
    """A list, files and a Posterior give the same term."""
    model = bert()
    a, b = (draw_fisher(model, seed, n) for seed, n in ((1, 20), (2, 50)))
    b.save(tmp_path / "b.safetensors")
    total = {n: a.H[n] + b.H[n] for n in a}
    forms = [
        [a, tmp_path / "b.safetensors"],
        Posterior(model.state_dict(), total),
        FisherResult(total, 1, 1, "exact"),
    ]
    values = []
    for fisher in forms:
        callback = ProximalCallback(fisher, start=displaced(model), num_examples=10)
        make_trainer(tmp_path / "out", bert(), examples(8), [callback]).train()
        values.append(callback.value())
    start = displaced(model)
    expected = sum(
        float((total[n] * (p - start[n]).square()).sum()) / 20
        for n, p in model.state_dict().items()
        if n in total
    )
    assert values == pytest.approx([expected] * 3, rel=1e-5)


def test_trainable_parameters_only(tmp_path):
    model = bert()
    fisher = draw_fisher(model)
    model.bert.requires_grad_(False)
    head = {n: f for n, f in fisher.items() if n.startswith("classifier")}
    values = []
    for diagonal in (fisher.diagonal, head):
        callback = ProximalCallback(
            FisherResult(diagonal, 5, 5, "exact"), start=displaced(model)
        )
        make_trainer(tmp_path, model, examples(8), [callback]).train()
        assert model.bert.embeddings.word_embeddings.weight.grad is None
        values.append(callback.value())
    assert values[0] == values[1] > 0


def test_peft(tmp_path):
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(
        task_type="SEQ_CLS", r=2, target_modules=["query"], init_lora_weights=False
    )
    model = peft.get_peft_model(bert(), config)
    fisher = merganser.fisher(model, torch.utils.data.DataLoader(examples(8), 8))
    callback = ProximalCallback(fisher)
    options = {"learning_rate": 1e-2}
    make_trainer(tmp_path, model, examples(8), [callback], **options).train()
    assert callback.value() > 0


@pytest.mark.slow
@pytest.mark.parametrize("decoupled", [False, True])
def test_resumes(decoupled, tmp_path):
    options = {
        "num_train_epochs": 2,
        "learning_rate": 1e-2,
        "save_strategy": "steps",
        "save_steps": 1,
    }

    def train(step, start):
        model = bert(dropout=True)
        callback = ProximalCallback(
            draw_fisher(model), decoupled=decoupled, start=start
        )
        make_trainer(tmp_path, model, examples(20), [callback], **options).train(
            resume_from_checkpoint=step and str(tmp_path / f"checkpoint-{step}")
        )
        return model.state_dict()

    expected = train(None, None)
    with pytest.raises(InputError, match="resumes at step 3: pass start"):
        train(3, None)
    found = train(3, bert())
    assert all(torch.equal(found[n], x) for n, x in expected.items())


def test_start_in_files(tmp_path):
    model = bert()
    model.save_pretrained(tmp_path)
    fisher = draw_fisher(model)
    make_trainer(
        tmp_path / "out", model, examples(8), [ProximalCallback(fisher, start=tmp_path)]
    ).train()
    fisher.base_model_hash = "of another model"
    trainer = make_trainer(
        tmp_path / "out", model, examples(8), [ProximalCallback(fisher, start=tmp_path)]
    )
    with pytest.raises(InputError, match="belongs to a different model than start"):
        trainer.train()
    # Online EWC: only the Fisher of the last task is of theta_0.
    last = draw_fisher(model)
    last.base_model_hash = merganser._C.content_hash(tmp_path)
    callback = ProximalCallback([fisher, last], start=tmp_path)
    make_trainer(tmp_path / "out", model, examples(8), [callback]).train()


def test_the_fisher_of_another_model_without_start(tmp_path):
    bert().save_pretrained(tmp_path)
    model = type(bert()).from_pretrained(tmp_path)
    fisher, other = draw_fisher(model), draw_fisher(model)
    fisher.base_model_hash = merganser._C.content_hash(tmp_path)
    other.base_model_hash = "of another model"

    def train(*fishers):
        callback = ProximalCallback(list(fishers))
        make_trainer(tmp_path / "out", model, examples(8), [callback]).train()

    with pytest.raises(
        InputError, match="belongs to a different model than the one to"
    ):
        train(other)
    train(other, fisher)


def test_together_with_a_fisher(tmp_path):
    model, data = bert(), examples(16)
    for order in (1, -1):
        proximal = ProximalCallback(draw_fisher(model))
        callbacks = [proximal, FisherCallback("adam")][::order]
        with pytest.raises(InputError, match="square the gradient of the term"):
            make_trainer(tmp_path, model, data, callbacks).train()
    model.zero_grad()
    results = []
    for proximal in (False, True):
        callback = FisherCallback("adam")
        added = [ProximalCallback(draw_fisher(model), decoupled=True)] * proximal
        make_trainer(tmp_path, model, data, [callback, *added]).train()
        results.append(callback.result)
    assert all(torch.equal(results[0][n], f) for n, f in results[1].items())
    callbacks = [ProximalCallback(draw_fisher(model)), FisherCallback("online_mc")]
    make_trainer(tmp_path, model, data, callbacks).train()


def spoiled(**tensors):
    fisher = draw_fisher(bert())
    for name, tensor in tensors.items():
        name = name.replace("__", ".")
        if tensor is None:
            del fisher.diagonal[name]
        else:
            fisher.diagonal[name] = tensor
    return fisher


@pytest.mark.parametrize(
    "change, message",
    [
        ({"classifier__bias": None}, "fisher lacks trainable.*'classifier.bias'"),
        ({"head": torch.ones(3)}, "fisher has tensors that the model lacks: 'head'"),
        ({"classifier__bias": torch.ones(2)}, r"'classifier.bias' has shape \[2\]"),
        ({"classifier__bias": -torch.ones(3)}, "must be finite and not negative"),
        ({"classifier__bias": torch.full((3,), torch.inf)}, "must be finite"),
    ],
)
def test_refuses_fishers(change, message, tmp_path):
    callback = ProximalCallback(spoiled(**change))
    with pytest.raises(InputError, match=message):
        make_trainer(tmp_path, bert(), examples(8), [callback]).train()


def test_refuses_steps_that_overshoot(tmp_path):
    fisher = draw_fisher(bert(), num_examples=10**6)
    callback = ProximalCallback(fisher, decoupled=True)
    trainer = make_trainer(
        tmp_path, bert(), examples(8), [callback], learning_rate=1e-2
    )
    with pytest.raises(InputError, match="decoupled step would overshoot theta_0"):
        trainer.train()


def test_refuses_a_weight_that_overflows(tmp_path):
    callback = ProximalCallback(draw_fisher(bert()), 1e300)
    trainer = make_trainer(tmp_path, bert(), examples(8), [callback])
    message = r"weight \* H / N overflows torch.float32 in tensor .* is 1.25e\+299: use"
    with pytest.raises(InputError, match=message):
        trainer.train()


def test_refuses_trainers(tmp_path):
    trainer = make_trainer(tmp_path, bert(), examples(8))
    trainer.args.fp16 = True
    with pytest.raises(InputError, match="ProximalCallback does not support fp16"):
        ProximalCallback(draw_fisher(bert())).on_train_begin(
            trainer.args,
            trainer.state,
            trainer.control,
            model=trainer.model,
            train_dataloader=None,
        )


def test_refuses_arguments(tmp_path):
    fisher = draw_fisher(bert())
    for weight in (-1.0, float("nan"), float("inf"), "1"):
        with pytest.raises(InputError, match="weight must be a finite number"):
            ProximalCallback(fisher, weight)
    for given in ([], None, 3):
        with pytest.raises(InputError, match="fisher must be a FisherResult"):
            ProximalCallback(given)
    with pytest.raises(InputError, match="a Fisher must be a FisherResult"):
        ProximalCallback([fisher, 3])
    with pytest.raises(InputError, match="num_examples must be at least 1"):
        ProximalCallback(fisher, num_examples=0)
    with pytest.raises(InputError, match="once training has begun"):
        ProximalCallback(fisher).value()
    with pytest.raises(InputError, match="start lacks a tensor of the model"):
        callback = ProximalCallback(fisher, start={"w": torch.ones(1)})
        make_trainer(tmp_path, bert(), examples(8), [callback]).train()


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
    one, _ = run(
        tmp_path / "one", decoupled=True, lr=LR, max_grad_norm=0.5, **SPLITS["1x8"]
    )
    for found in ranks:
        for a, b in zip(found["decoupled"], one.parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
