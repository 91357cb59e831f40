"""AdamWFisher against torch.optim.AdamW, and its Fisher against the definition."""

import copy
import io
import math

import merganser
import pytest
import tiny_models
import torch
from fisher_oracle import assert_fishers_close
from merganser.adamw_fisher import AdamWFisher
from torch.nn.functional import cross_entropy

SHAPES = {"matrix": (7, 5), "bias": (5,), "scalar": (), "large": (130, 257)}
LEARNING_RATES = {
    "float": lambda dtype: 2e-3,
    "tensor": lambda dtype: torch.tensor(2e-3, dtype=dtype),
}


def make_parameters(dtype=torch.float32):
    return {
        n: torch.nn.Parameter(torch.randn(s, dtype=dtype)) for n, s in SHAPES.items()
    }


def make_groups(parameters, lr):
    """Two groups with own options: decay only for parameters of several dimensions."""
    rest = {"lr": 5e-3, "weight_decay": 0.0, "betas": (0.8, 0.95), "eps": 1e-6}
    return [
        {"params": [(n, p) for n, p in parameters.items() if p.dim() > 1], "lr": lr},
        {"params": [(n, p) for n, p in parameters.items() if p.dim() < 2], **rest},
    ]


def make_pair(lr=2e-3, dtype=torch.float32, **options):
    """The same parameters in torch's AdamW and in AdamWFisher."""
    theirs = make_parameters(dtype)
    ours = copy.deepcopy(theirs)
    groups = [make_groups(p, lr) for p in (theirs, ours)]
    reference = torch.optim.AdamW(groups[0], weight_decay=0.1)
    optimizer = AdamWFisher(groups[1], weight_decay=0.1, **options)
    optimizer.batch_size = 4
    return theirs, ours, reference, optimizer


def set_gradients(*courses, step):
    """Sets equal gradients, of norms from 0.01 to 100; sometimes none."""
    generator = torch.Generator().manual_seed(step)
    for name in SHAPES:
        size = 10.0 ** (step % 5 - 2) / 180
        gradient = size * torch.randn(SHAPES[name], generator=generator)
        for parameters in courses:
            p = parameters[name]
            p.grad = None if name == "bias" and step % 3 == 1 else gradient.to(p.dtype)
            if p.grad is not None:
                p.grad = p.grad.clone()


def assert_same(ours, theirs, limit):
    for name, p in theirs.items():
        error = (ours[name] - p).norm() / p.norm()
        assert error <= limit, f"{name}: {error:.1e}"


@pytest.mark.parametrize("lr", LEARNING_RATES)
@pytest.mark.parametrize("clip", [None, 1.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_steps_are_those_of_adamw(lr, clip, dtype):
    theirs, ours, reference, optimizer = make_pair(
        LEARNING_RATES[lr](dtype), dtype, max_grad_norm=clip
    )
    for step in range(40):
        set_gradients(theirs, ours, step=step)
        if clip is not None:
            norm = torch.nn.utils.clip_grad_norm_(theirs.values(), clip)
        reference.step()
        optimizer.step()
        expected = None if clip is None else pytest.approx(norm.item(), rel=1e-6)
        assert optimizer.grad_norm == expected
    assert_same(ours, theirs, 1e-7 if dtype == torch.float32 else 1e-14)
    for mine, p in zip(ours.values(), theirs.values(), strict=True):
        assert optimizer.state[mine]["step"] == reference.state[p]["step"]


def test_scheduler_and_closure():
    theirs, ours, reference, optimizer = make_pair()
    schedules = [
        torch.optim.lr_scheduler.LinearLR(o, 1.0, 0.1, 5)
        for o in (reference, optimizer)
    ]
    for step in range(8):
        set_gradients(theirs, ours, step=step)
        assert reference.step(lambda: 1.5) == optimizer.step(lambda: 1.5) == 1.5
        for schedule in schedules:
            schedule.step()
    assert_same(ours, theirs, 1e-7)


def through_a_file(state):
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


@pytest.mark.parametrize("fused", [None, True])
def test_state_from_adamw(fused):
    theirs, ours, reference, optimizer = make_pair()
    for group in reference.param_groups:
        group["fused"] = fused
    for step in range(5):
        set_gradients(theirs, step=step)
        reference.step()
    optimizer.load_state_dict(through_a_file(reference.state_dict()))
    for name, p in theirs.items():
        ours[name].data.copy_(p.data)
    for step in range(5, 15):
        set_gradients(theirs, ours, step=step)
        reference.step()
        optimizer.step()
    assert_same(ours, theirs, 1e-7)


def test_state_to_adamw():
    theirs, ours, reference, optimizer = make_pair()
    for step in range(5):
        set_gradients(ours, step=step)
        optimizer.step()
    state = through_a_file(optimizer.state_dict())
    keys = {"step", "exp_avg", "exp_avg_sq", "fisher"}
    assert all(set(entry) == keys for entry in state["state"].values())
    reference.load_state_dict(state)
    for name, p in ours.items():
        theirs[name].data.copy_(p.data)
    for step in range(5, 15):
        set_gradients(theirs, ours, step=step)
        reference.step()
        optimizer.step()
    assert_same(ours, theirs, 1e-7)


def collect(optimizer, parameters, steps, sizes):
    for step in steps:
        set_gradients(parameters, step=step)
        optimizer.batch_size = sizes[step % len(sizes)]
        optimizer.step()


def define_fisher(steps, sizes):
    """sum_s (n_s gbar_s)^2 / sum_s n_s for the given gradients."""
    sums, count = {}, 0
    for step in steps:
        parameters = make_parameters(torch.float64)
        set_gradients(parameters, step=step)
        n = sizes[step % len(sizes)]
        count += n
        for name, p in parameters.items():
            total = sums.setdefault(name, torch.zeros_like(p, requires_grad=False))
            if p.grad is not None:
                total += (n * p.grad) ** 2
    return {name: total / count for name, total in sums.items()}, count


@pytest.mark.parametrize("clip", [None, 0.5])
def test_fisher_is_that_of_unclipped_gradients(clip):
    _, ours, _, optimizer = make_pair(max_grad_norm=clip)
    sizes = [4, 8, 3]
    collect(optimizer, ours, range(3), sizes)
    optimizer.reset_fisher()
    collect(optimizer, ours, range(3, 13), sizes)
    expected, count = define_fisher(range(3, 13), sizes)
    fisher = optimizer.fisher(num_examples=1000)
    assert_fishers_close(fisher, expected, 1e-6)
    assert (fisher.estimator, fisher.labels) == ("adam", "data")
    assert (fisher.num_examples, fisher.num_examples_used) == (1000, count)


def test_loss_terms():
    """For the mean over 12 tokens of 4 sequences, the sum is 12 times the mean."""
    _, ours, _, optimizer = make_pair()
    optimizer.loss_terms = 12
    collect(optimizer, ours, range(5), [4])
    expected, _ = define_fisher(range(5), [12])
    fisher = optimizer.fisher(20)
    assert_fishers_close(fisher, {n: 3 * f for n, f in expected.items()}, 1e-6)


def test_fisher_goes_on_from_a_state_dict():
    _, ours, _, optimizer = make_pair()
    collect(optimizer, ours, range(4), [4, 8])
    state = through_a_file(optimizer.state_dict())
    collect(optimizer, ours, range(4, 9), [4, 8])

    _, others, _, other = make_pair()
    other.load_state_dict(state)
    collect(other, others, range(4, 9), [4, 8])
    a, b = optimizer.fisher(50), other.fisher(50)
    assert a.num_examples_used == b.num_examples_used
    assert all(torch.equal(a[name], b[name]) for name in SHAPES)


def test_a_copy_keeps_the_settings():
    optimizer = make_pair(max_grad_norm=0.5, collect_fisher=False)[-1]
    twin = copy.deepcopy(optimizer)
    assert (twin.max_grad_norm, twin.collect_fisher, twin.batch_size) == (0.5, False, 4)


def test_collection_off_keeps_no_sums():
    _, ours, _, optimizer = make_pair(collect_fisher=False)
    optimizer.batch_size = None
    set_gradients(ours, step=0)
    optimizer.step()
    assert all("fisher" not in state for state in optimizer.state.values())
    with pytest.raises(merganser.InputError, match="no step has been collected"):
        optimizer.fisher(10)


def train_frozen(batches, accumulate=1, clip=None):
    """Trains an unchanging model with `adam`: lr=0, no dropout."""
    model = tiny_models.bert(hidden_dropout_prob=0, attention_probs_dropout_prob=0)
    optimizer = AdamWFisher(
        model.named_parameters(), lr=0, weight_decay=0, max_grad_norm=clip
    )
    for start in range(0, len(batches), accumulate):
        group = batches[start : start + accumulate]
        optimizer.batch_size = sum(len(batch["labels"]) for batch in group)
        for batch in group:
            total = cross_entropy(
                model(**batch).logits, batch["labels"], reduction="sum"
            )
            (total / optimizer.batch_size).backward()
        optimizer.step()
        optimizer.zero_grad()
    return model, optimizer.fisher(sum(len(batch["labels"]) for batch in batches))


def slices(whole, size):
    count = len(whole["labels"])
    return [
        {name: value[i : i + size] for name, value in whole.items()}
        for i in range(0, count, size)
    ]


@pytest.mark.parametrize("clip", [None, 1e-3])
def test_batches_of_one_are_the_empirical_fisher(clip):
    batches = slices(tiny_models.batch([5, 9, 7, 3, 8, 6]), 1)
    model, fisher = train_frozen(batches, clip=clip)
    expected = merganser.fisher(model, batches, "empirical")
    assert_fishers_close(fisher, expected.diagonal)
    assert fisher.num_examples_used == 6


@pytest.mark.parametrize("size", [4, 2])
def test_accumulation_and_clipping_do_not_matter(size):
    whole = tiny_models.batch([5, 9, 7, 3, 8, 6, 4, 9, 5, 5, 6, 7, 8, 3, 9, 4])
    torch.manual_seed(1)
    _, expected = train_frozen(slices(whole, 8))
    torch.manual_seed(1)
    _, fisher = train_frozen(slices(whole, size), accumulate=8 // size, clip=1e-3)
    assert_fishers_close(fisher, expected.diagonal)


def test_a_parameter_without_gradient_has_a_fisher_of_zero():
    used, unused = (torch.nn.Parameter(torch.ones(2)) for _ in range(2))
    optimizer = AdamWFisher([("used", used), ("unused", unused)])
    optimizer.batch_size = 2
    used.grad = torch.ones(2)
    optimizer.step()
    assert optimizer.fisher(2)["unused"].tolist() == [0, 0]
    assert optimizer.fisher(2)["used"].tolist() == [2, 2]


BAD_PARAMETERS = {
    "half": torch.zeros(3, dtype=torch.bfloat16),
    "strided": torch.zeros(3, 2).t(),
}


@pytest.mark.parametrize("kind", BAD_PARAMETERS)
def test_refuses_parameters(kind):
    bad = torch.nn.Parameter(BAD_PARAMETERS[kind])
    good = torch.nn.Parameter(torch.zeros(2))
    with pytest.raises(merganser.InputError, match="parameter 1 of its group"):
        AdamWFisher([good, bad])
    optimizer = AdamWFisher([("weight", good)])
    with pytest.raises(merganser.InputError, match="head.weight"):
        optimizer.add_param_group({"params": [("head.weight", bad)]})
    assert len(optimizer.param_groups) == 1


@pytest.mark.parametrize("option", ["amsgrad", "maximize", "capturable"])
def test_refuses_options(option):
    _, ours, _, optimizer = make_pair()
    with pytest.raises(merganser.InputError, match=f"does not support {option}"):
        AdamWFisher([{"params": list(ours.values()), option: True}])
    state = optimizer.state_dict()
    state["param_groups"][1][option] = True
    with pytest.raises(merganser.InputError, match=f"does not support {option}"):
        optimizer.load_state_dict(state)


def test_refuses_what_it_cannot_account_for():
    p = torch.nn.Parameter(torch.ones(2))
    optimizer = AdamWFisher([p], max_grad_norm=1.0)
    p.grad = torch.ones(2)
    with pytest.raises(merganser.InputError, match="batch_size.*None"):
        optimizer.step()
    optimizer.batch_size = 2
    p.grad = torch.tensor([1.0, math.nan])
    with pytest.raises(merganser.Error, match="norm of the gradient is nan"):
        optimizer.step()
    p.grad = torch.ones(2).to_sparse()
    with pytest.raises(merganser.InputError, match="parameter 0.*sparse"):
        optimizer.step()
    assert p.tolist() == [1, 1] and not optimizer.state
    p.grad = torch.ones(2)
    optimizer.max_grad_norm = 0.0
    with pytest.raises(merganser.InputError, match="above 0"):
        optimizer.step()
    optimizer.max_grad_norm = None
    optimizer.step()
    with pytest.raises(merganser.InputError, match="named_parameters"):
        optimizer.fisher(2)
    optimizer.state[p]["fisher"].fill_(math.inf)
    optimizer.param_groups[0]["param_names"] = ["weight"]
    with pytest.raises(merganser.Error, match="weight is not finite"):
        optimizer.fisher(2)
