"""merganser.linearize against explicit Jacobians, finite differences and Trainer."""

import copy
import inspect
import json

import hf_training
import merganser
import pytest
import tiny_models
import torch
from merganser import InputError
from torch import nn
from torch.func import functional_call, jacrev, jvp
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import GPT2Config, GPT2ForSequenceClassification


def gpt2_classifier():
    torch.manual_seed(1)
    config = GPT2Config(
        **{"vocab_size": 43, "n_positions": 24, "n_embd": 16, "n_layer": 2},
        **{"n_head": 4, "num_labels": 3, "pad_token_id": 0},
    )
    return tiny_models.with_larger_weights(GPT2ForSequenceClassification(config))


MODELS = {
    "bert": tiny_models.bert,
    "roberta": tiny_models.roberta,
    "distilbert": tiny_models.distilbert,
    "gpt2": hf_training.gpt2,
    "gpt2-classifier": gpt2_classifier,
}


def batch_for(model):
    batch = tiny_models.batch([3, 7, 5])
    if type(model).__name__ == "GPT2LMHeadModel":
        batch["labels"] = batch["input_ids"].masked_fill(batch["input_ids"] == 0, -100)
    return batch


def move(linear, scale=0.05, seed=2):
    """Displaces the parameters; returns the displacements by name."""
    generator = torch.Generator().manual_seed(seed)
    moved = {}
    with torch.no_grad():
        for name, p in linear.named_parameters():
            step = torch.randn(p.shape, generator=generator, dtype=p.dtype)
            moved[name] = scale * step
            p += moved[name]
    return moved


def logits_of(model, batch, state):
    inputs = {n: x for n, x in batch.items() if n != "labels"}
    inputs |= {"use_cache": False} if "gpt2" in type(model).__name__.lower() else {}
    return functional_call(model, state, (), inputs).logits


@pytest.mark.parametrize("name", MODELS)
def test_first_order_model(name):
    """Directional derivatives in float64, by central differences and by torch.func."""
    model = MODELS[name]().double()
    batch = batch_for(model)
    linear = merganser.linearize(model)
    step = move(linear, 0.1)
    model.eval()
    start = {n: p.detach() for n, p in model.named_parameters()}
    eps = 1e-5
    ahead, back = (
        logits_of(model, batch, {n: p + sign * eps * step[n] for n, p in start.items()})
        for sign in (1, -1)
    )
    expected = logits_of(model, batch, start) + (ahead - back) / (2 * eps)
    found = linear(**batch)
    scale = expected.detach().abs().max()
    assert (found.logits - expected).abs().max() < 1e-6 * scale
    with sdpa_kernel(SDPBackend.MATH):  # others have no forward derivative
        exact = jvp(lambda state: logits_of(model, batch, state), (start,), (step,))
    torch.testing.assert_close(found.logits, sum(exact), rtol=1e-12, atol=1e-12)
    with torch.no_grad():
        assert torch.equal(linear(**batch).logits, found.logits)


@pytest.mark.parametrize("name", ["bert", "gpt2-classifier"])
def test_gradient_of_the_loss(name):
    """Jacobian^T (softmax - onehot) / B, with an explicit Jacobian at theta_0."""
    model = MODELS[name]().double().eval()
    batch = batch_for(model)
    linear = merganser.linearize(model)
    move(linear)
    start = {n: p.detach() for n, p in model.named_parameters()}
    with sdpa_kernel(SDPBackend.MATH):
        jacobian = jacrev(lambda state: logits_of(model, batch, state))(start)
    out = linear(**batch)
    out.loss.backward()
    expected = torch.nn.functional.cross_entropy(out.logits, batch["labels"])
    torch.testing.assert_close(out.loss, expected)
    v = out.logits.softmax(1) - torch.nn.functional.one_hot(batch["labels"], 3)
    for n, p in linear.named_parameters():
        gradient = torch.tensordot(v.detach() / 3, jacobian[n], 2)
        torch.testing.assert_close(p.grad, gradient, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", MODELS)
def test_is_the_model_at_theta_0(name):
    """The same outputs, loss, names, class name and signature."""
    model = MODELS[name]().double()
    linear = merganser.linearize(model)
    assert list(linear.state_dict()) == list(model.state_dict())
    assert type(linear).__name__ == type(model).__name__
    assert isinstance(linear, type(model))
    assert inspect.signature(linear.forward) == inspect.signature(model.forward)
    batch = batch_for(model)
    model.eval()
    for options in ({}, {"num_items_in_batch": 5}):
        expected = model(**batch, **options, output_hidden_states=True)
        found = linear.train()(**batch, **options, output_hidden_states=True)
        assert list(found)[:2] == list(expected)[:2] == ["loss", "logits"]
        torch.testing.assert_close(found.loss, expected.loss)
        torch.testing.assert_close(found.logits, expected.logits)
        torch.testing.assert_close(found.hidden_states, expected.hidden_states)
    loss, logits = linear(**batch, return_dict=False)[:2]
    torch.testing.assert_close(loss, model(**batch).loss)
    torch.testing.assert_close(logits, expected.logits)


PROBLEMS = {
    "regression": {"num_labels": 1, "problem_type": "regression"},
    "regression-3": {"num_labels": 3, "problem_type": "regression"},
    "multilabel": {"num_labels": 3, "problem_type": "multi_label_classification"},
}


@pytest.mark.parametrize("problem", PROBLEMS)
def test_other_losses(problem):
    model = tiny_models.bert(**PROBLEMS[problem]).eval()
    batch = tiny_models.batch([4, 4])
    shape = (2,) if problem == "regression" else (2, 3)
    batch["labels"] = (torch.randn(shape) > 0).float()
    linear = merganser.linearize(model)
    torch.testing.assert_close(linear(**batch).loss, model(**batch).loss)


RUNS = {
    "plain": {},
    "bf16": {"bf16": True},
    "accumulated": {
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 4,
    },
}


@pytest.mark.slow
@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("name", ["bert", "roberta", "gpt2"])
def test_trainer(name, run, tmp_path):
    """The objective falls, and the saved directory is an ordinary model."""
    model = MODELS[name]()
    data = (hf_training.sentences if name == "gpt2" else hf_training.examples)(16)
    linear = merganser.linearize(model)
    options = {"learning_rate": 1e-3, "num_train_epochs": 4, "max_grad_norm": 0.0}
    trainer = hf_training.make_trainer(
        tmp_path, linear, data, **options | RUNS[run], save_strategy="epoch"
    )
    before = trainer.evaluate(data)["eval_loss"]
    trainer.train()
    assert trainer.evaluate(data)["eval_loss"] < before
    linear.save_pretrained(tmp_path / "out")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["architectures"] == [type(model).__name__]
    loaded = type(model).from_pretrained(tmp_path / "out")
    ours = linear.state_dict()
    assert all(torch.equal(ours[n], x) for n, x in loaded.state_dict().items())
    start = model.state_dict()
    assert any(not torch.equal(start[n], x) for n, x in ours.items())
    merged = merganser.merge(model, [linear, loaded], method="task_arithmetic")
    assert merged.keys() == start.keys()


def test_a_step_of_sgd_on_the_quadratic_loss():
    """The linear model's squared error is quadratic: gradient descent reaches the
    least-squares solution of the tangent space."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)).double()
    x = torch.randn(9, 3, dtype=torch.float64)
    y = torch.randn(9, 1, dtype=torch.float64)
    start = {n: p.detach() for n, p in model.named_parameters()}
    jacobian = jacrev(lambda state: functional_call(model, state, (x,)))(start)
    a = torch.cat([j.reshape(9, -1) for j in jacobian.values()], 1)
    linear = merganser.linearize(model)
    ridge = 0.1
    optimizer = torch.optim.LBFGS(
        linear.parameters(), max_iter=500, tolerance_grad=1e-12, tolerance_change=0
    )

    def objective():
        optimizer.zero_grad()
        moved = sum((p - start[n]).square().sum() for n, p in linear.named_parameters())
        value = (linear(x) - y).square().sum() + ridge * moved
        value.backward()
        return value

    optimizer.step(objective)
    residual = (y - model(x)).detach()
    expected = torch.linalg.solve(
        a.T @ a + ridge * torch.eye(a.shape[1]), a.T @ residual
    )
    found = [(p - start[n]).flatten() for n, p in linear.named_parameters()]
    torch.testing.assert_close(torch.cat(found), expected[:, 0], rtol=1e-6, atol=1e-8)


def test_frozen_parameters_and_buffers_are_constants():
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)).double()
    model[2].requires_grad_(False)
    linear = merganser.linearize(model)
    with torch.no_grad():
        linear[2].weight += 1
        linear[1].running_mean += 1
    x = torch.randn(5, 3, dtype=torch.float64)
    changed = copy.deepcopy(model).eval()
    changed.load_state_dict(linear.state_dict())
    torch.testing.assert_close(linear(x), changed(x))
    linear(x).sum().backward()
    assert linear[2].weight.grad is None
    assert linear[0].weight.grad is not None
    assert torch.equal(linear[1].running_mean, changed[1].running_mean)


def test_attention_of_torch():
    """In eval mode without gradients, torch's encoder layer has a fused path."""
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).double()
    linear = merganser.linearize(layer)
    move(linear)
    x = torch.randn(2, 5, 8, dtype=torch.float64)
    with torch.no_grad():
        found = linear(x)
    torch.testing.assert_close(found, linear(x))
    assert torch.backends.mha.get_fastpath_enabled()


def test_moves_with_the_module():
    linear = merganser.linearize(tiny_models.bert())
    batch = tiny_models.batch([3, 4])
    before = linear(**batch).logits
    found = linear.double()(**batch).logits
    assert found.dtype == torch.float64
    torch.testing.assert_close(found.float(), before)
    twin = copy.deepcopy(linear)
    move(twin)
    assert torch.equal(linear(**batch).logits, found)


def test_refusals():
    with pytest.raises(InputError, match="must be a module, not dict"):
        merganser.linearize({})
    frozen = nn.Linear(2, 2).requires_grad_(False)
    with pytest.raises(InputError, match="no trainable parameter"):
        merganser.linearize(frozen)
    linear = merganser.linearize(nn.Linear(2, 2))
    with pytest.raises(InputError, match="linearized already"):
        merganser.linearize(linear)
    replaced = nn.Linear(2, 2)
    replaced.forward = replaced.forward
    with pytest.raises(InputError, match="replaced on the instance"):
        merganser.linearize(replaced)


@pytest.mark.slow
def test_fisher_refuses_a_linearized_model():
    linear = merganser.linearize(nn.Linear(3, 2))
    for model in (linear, torch.compile(linear)):
        with pytest.raises(InputError, match="ordinary model, got a linearized one: s"):
            merganser.fisher(model, [torch.ones(1, 3)])


def test_refuses_caches():
    linear = merganser.linearize(hf_training.gpt2())
    ids = tiny_models.batch([4])["input_ids"]
    with pytest.raises(InputError, match="no key-value cache: pass use_cache=False"):
        linear(ids, use_cache=True)


def test_refuses_a_loss_of_its_own():
    model = tiny_models.bert()

    def change_loss(model, args, output):
        if output.get("loss") is not None:
            output["loss"] = 1.5 * output["loss"]

    model.register_forward_hook(change_loss)
    linear = merganser.linearize(model)
    with pytest.raises(InputError, match="the model's loss is.*omit labels"):
        linear(**tiny_models.batch([3, 4]))

    class WithLabels(nn.Linear):
        def forward(self, x, labels=None):
            return super().forward(x)

    linear = merganser.linearize(WithLabels(2, 2))
    with pytest.raises(InputError, match="must be a transformers model"):
        linear(torch.ones(1, 2), labels=torch.ones(1))


class NoForwardMode(torch.autograd.Function):
    @staticmethod
    def forward(x):
        return x.clone()

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass

    @staticmethod
    def backward(ctx, gradient):
        return gradient


def test_refuses_operations_without_forward_mode():
    class Custom(nn.Linear):
        def forward(self, x):
            return NoForwardMode.apply(super().forward(x))

    linear = merganser.linearize(Custom(2, 2))
    with pytest.raises(InputError, match="cannot be linearized.*forward mode AD;"):
        linear(torch.ones(1, 2))
