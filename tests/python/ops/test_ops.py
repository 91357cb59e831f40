"""The operators against definitions in float64 (by autograd if possible) and
torch.optim.AdamW, and the requirements on dispatcher operators."""

import math

import pytest
import torch
from merganser import ops
from torch.library import opcheck

FLOATS = [torch.float32, torch.bfloat16, torch.float16]
SIZES = [0, 1, 3, 255, 256, 257, 65537]
METHODS = [
    "linear",
    "task_arithmetic",
    "fisher",
    "fisher_base",
    "gradient_matching",
    "removal",
    "ewr",
]


def reals(*shape, dtype=torch.float32, device="cpu"):
    """Normal values at an address that is not aligned."""
    count = math.prod(shape)
    storage = torch.randn(count + 1, device=device).to(dtype)
    return storage[1:].view(shape)


def from_cpu(device):
    """Elementwise results are exact on the CPU; a GPU may round a definition of several
    kernels differently."""
    return {"rtol": 0, "atol": 0} if device == "cpu" else {}


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("size", SIZES)
def test_square_accumulate(device, size, dtype):
    fisher = reals(size, device=device)
    grad = reals(size, dtype=dtype, device=device)
    expected = fisher + grad.float().square() * 0.25
    ops.square_accumulate_(fisher, grad, 0.25)
    torch.testing.assert_close(fisher, expected, **from_cpu(device))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_square_accumulate_keeps_what_is_not_finite(device, value):
    fisher = torch.zeros(1000, device=device)
    grad = torch.ones(1000, device=device)
    for place in (0, 501, 999):
        grad[place] = value
    ops.square_accumulate_(fisher, grad)
    torch.testing.assert_close(fisher, grad.square(), equal_nan=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_adam_step_is_torch_adamw(device, dtype):
    weight_decay, lr, betas, eps = 0.1, 1e-2, (0.9, 0.99), 1e-8
    start = reals(1001, device=device).to(dtype)
    peer = torch.nn.Parameter(start.clone())
    optimizer = torch.optim.AdamW(
        [peer], lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, foreach=False
    )
    param = start.clone()
    exp_avg, exp_avg_sq, fisher = (torch.zeros_like(param) for _ in range(3))
    total = torch.zeros_like(param)
    for step in range(1, 201):
        grad = reals(1001, device=device).to(dtype) * (1 + peer.detach())
        peer.grad = grad.clone()
        optimizer.param_groups[0]["lr"] = lr / step
        optimizer.step()
        total += grad.square() * 3
        ops.adam_fisher_step_(
            [param],
            [grad],
            [exp_avg],
            [exp_avg_sq],
            [fisher],
            steps=[step],
            lr=lr / step,
            beta1=betas[0],
            beta2=betas[1],
            eps=eps,
            weight_decay=weight_decay,
            fisher_weight=3,
        )
        if step % 50 == 0 or step == 1:
            torch.testing.assert_close(param, peer.detach())
            torch.testing.assert_close(exp_avg, optimizer.state[peer]["exp_avg"])
            torch.testing.assert_close(exp_avg_sq, optimizer.state[peer]["exp_avg_sq"])
    torch.testing.assert_close(fisher, total)


def test_adam_step_scales_gradients_as_clipping_does(device):
    states = []
    for factor, scale in ((1.0, 0.1), (0.1, 1.0)):
        torch.manual_seed(0)
        state = [reals(100, device=device) for _ in range(2)]
        state += [reals(100, device=device).abs() for _ in range(2)]
        param, *sums = ([x] for x in state)
        grad = reals(100, device=device) * factor
        ops.adam_fisher_step_(param, [grad], *sums, lr=0.1, steps=[3], grad_scale=scale)
        states.append(state)
    torch.testing.assert_close(states[0], states[1])


def test_adam_step_without_fisher_moves_alike(device):
    results = []
    for fisher in ([], [torch.zeros(300, device=device)]):
        torch.manual_seed(0)
        param, grad, exp_avg = (reals(300, device=device) for _ in range(3))
        exp_avg_sq = reals(300, device=device).abs()
        ops.adam_fisher_step_(
            [param], [grad], [exp_avg], [exp_avg_sq], fisher, lr=0.1, steps=[1]
        )
        results.append((param, exp_avg, exp_avg_sq))
    torch.testing.assert_close(results[0], results[1], rtol=0, atol=0)


def merged_float64(
    base, base_fisher, models, fishers, weights, scales, method, rhos=None
):
    """The table in docs/method.md, section 2, in float64, with delta 1e-12."""
    base, f0 = base.double(), base_fisher.double()
    theta = [x.double() for x in models]
    h = [n * f.double() for n, f in zip(scales, fishers, strict=True)]
    h0 = 500 * f0 + 1e-12
    terms = list(zip(weights, theta, h, strict=True))
    if method == "linear":
        return sum(a * x for a, x, _ in terms)
    if method == "task_arithmetic":
        return base + sum(a * (x - base) for a, x, _ in terms)
    if method == "fisher":
        return sum(a * g * x for a, x, g in terms) / sum(a * g for a, _, g in terms)
    if method == "fisher_base":
        top = sum(a * g * (x - base) for a, x, g in terms)
        return base + top / (h0 + sum(a * g for a, _, g in terms))
    if method == "gradient_matching":
        rhos = rhos or [1.0] * len(terms)
        pairs = zip(rhos, terms, strict=True)
        top = sum(a * (rho * h0 + g) * (x - base) for rho, (a, x, g) in pairs)
        return base + top / (h0 + sum(a * g for a, _, g in terms))
    if method == "removal":
        total = sum(a * g for a, _, g in terms)
        top = sum(a * (h0 + g) * (x - base) for a, x, g in terms)
        plain = sum(a * (x - base) for a, x, _ in terms)
        clamped = h0 - total < 0.1 * (h0 + total)
        return base - torch.where(clamped, plain, top / (h0 - total))
    assert method == "ewr"
    f0 = f0.clamp(min=1e-6)
    f = [x.double().clamp(min=1e-6) for x in fishers]
    top = f0 * base
    for a, x, g in zip(weights, theta, f, strict=True):
        top = top - a * g * (x - base)
    return top / (f0 + sum(a * g for a, g in zip(weights, f, strict=True)))


def merge_inputs(size, count, dtype, device):
    base = reals(size, dtype=dtype, device=device)
    models = [
        base + 0.1 * reals(size, dtype=dtype, device=device) for _ in range(count)
    ]
    fishers = [reals(size, device=device).square() * 1e-5 for _ in range(count)]
    base_fisher = reals(size, device=device).square() * 1e-5
    weights = [0.5 + 0.1 * t for t in range(count)]
    scales = [1000.0 + t for t in range(count)]
    return base, base_fisher, models, fishers, weights, scales


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("size,count", [(0, 2), (1, 1), (257, 3), (65537, 2), (50, 32)])
def test_merge(device, size, count, dtype, method):
    base, base_fisher, models, fishers, weights, scales = given = merge_inputs(
        size, count, dtype, device
    )
    with_fishers = method not in ("linear", "task_arithmetic")
    merged = ops.merge(
        base,
        models,
        fishers if with_fishers else (),
        method=method,
        base_fisher=base_fisher,
        weights=weights,
        scales=scales if with_fishers else (),
        base_scale=500,
        clamp=0.1,
    )
    expected = merged_float64(*given, method)
    assert merged.dtype == dtype
    if dtype == torch.float32:
        # Sums of up to 32 differences of values near 1, with weights up to 10.
        torch.testing.assert_close(merged.double(), expected, rtol=1.3e-6, atol=5e-5)
    else:
        torch.testing.assert_close(merged, expected.to(dtype), check_dtype=True)


@pytest.mark.parametrize("dtype", FLOATS)
def test_merge_takes_the_experts_gradients(device, dtype):
    rhos = [0.3, -0.2, 1.5]
    given = merge_inputs(257, 3, dtype, device)
    base, base_fisher, models, fishers, weights, scales = given
    options = {"base_fisher": base_fisher, "weights": weights, "scales": scales}
    options |= {"method": "measured_gradient_matching", "base_scale": 500}
    merged = ops.merge(base, models, fishers, rhos=rhos, **options)
    expected = merged_float64(*given, "gradient_matching", rhos)
    close = {"rtol": 1.3e-6, "atol": 5e-5} if dtype == torch.float32 else {}
    torch.testing.assert_close(merged, expected.to(dtype), **close)
    ones = ops.merge(base, models, fishers, rhos=[1.0] * 3, **options)
    plain = options | {"method": "gradient_matching"}
    assert torch.equal(ones, ops.merge(base, models, fishers, **plain))
    with pytest.raises(RuntimeError, match=r"needs rhos, one per model \(3\), got 1"):
        ops.merge(base, models, fishers, rhos=[1.0], **options)


def test_merge_refuses_unknown_methods():
    with pytest.raises(ValueError, match="median.*linear"):
        ops.merge(None, [torch.ones(1)], method="median")


def per_example(module, inputs, grad_output):
    """Sum over examples of the squared gradients, one example at a time, by
    autograd in float64: {name: tensor}."""
    module = module.double()
    sums = {n: torch.zeros_like(p) for n, p in module.named_parameters()}
    for i in range(len(inputs)):
        x = inputs[i : i + 1]
        output = module(x.double() if x.is_floating_point() else x)
        gradients = torch.autograd.grad(
            output, list(module.parameters()), grad_output[i : i + 1].double()
        )
        for total, gradient in zip(sums.values(), gradients, strict=True):
            total += gradient.square()
    return sums


def close_to_float64(actual, expected):
    # Sums that nearly cancel are only accurate relative to the norm.
    torch.testing.assert_close(
        actual.double(), expected, rtol=1e-5, atol=1e-5 * expected.abs().max().item()
    )


SHAPES = [
    (1, 1, 5, 3),
    (1, 40, 24, 16),
    (4, 1, 32, 12),
    (5, 7, 33, 13),
    (3, 24, 100, 130),
    (2, 300, 9, 70),
]


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("examples,tokens,inner,outer", SHAPES)
def test_linear_and_bias(device, examples, tokens, inner, outer, dtype):
    x = reals(examples, tokens, inner, dtype=dtype, device=device)
    d = reals(examples, tokens, outer, dtype=dtype, device=device)
    expected = per_example(torch.nn.Linear(inner, outer, device=device), x, d)
    weight = torch.ones(outer, inner, device=device)
    bias = torch.ones(outer, device=device)
    ops.linear_square_accumulate_(weight, x, d, 0.5)
    ops.bias_square_accumulate_(bias, d, 0.5)
    close_to_float64(weight, 1 + 0.5 * expected["weight"])
    close_to_float64(bias, 1 + 0.5 * expected["bias"])


@pytest.mark.parametrize("dtype", FLOATS)
def test_linear_and_bias_without_tokens(device, dtype):
    x = reals(9, 33, dtype=dtype, device=device)
    d = reals(9, 20, dtype=dtype, device=device)
    expected = per_example(torch.nn.Linear(33, 20, device=device), x, d)
    weight = torch.zeros(20, 33, device=device)
    bias = torch.zeros(20, device=device)
    ops.linear_square_accumulate_(weight, x, d)
    ops.bias_square_accumulate_(bias, d)
    close_to_float64(weight, expected["weight"])
    close_to_float64(bias, expected["bias"])


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("examples,tokens,inner,outer", SHAPES)
def test_layer_norm(device, examples, tokens, inner, outer, dtype):
    del inner
    module = torch.nn.LayerNorm(outer, device=device)
    x = reals(examples, tokens, outer, device=device)
    normalized = torch.nn.functional.layer_norm(x.double(), (outer,))
    d = reals(examples, tokens, outer, dtype=dtype, device=device)
    fisher = torch.zeros(outer, device=device)
    ops.layer_norm_square_accumulate_(fisher, normalized.float(), d)
    close_to_float64(fisher, per_example(module, x, d)["weight"])


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("padding", [-1, 2])
@pytest.mark.parametrize("rows", [3, 50])
def test_embedding(device, rows, padding, dtype):
    ids = torch.randint(rows, (6, 40), device=device)
    d = reals(6, 40, 37, dtype=dtype, device=device)
    module = torch.nn.Embedding(
        rows, 37, padding_idx=None if padding < 0 else padding, device=device
    )
    fisher = torch.zeros(rows, 37, device=device)
    ops.embedding_square_accumulate_(fisher, ids, d, padding_idx=padding)
    close_to_float64(fisher, per_example(module, ids, d)["weight"])


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("tokens", [1, 20])
def test_linear_leaves_out_tokens_without_gradient(device, tokens, dtype):
    x = reals(5, tokens, 33, dtype=dtype, device=device)
    d = reals(5, tokens, 50, dtype=dtype, device=device)
    d[1, tokens // 2 :] = 0
    d[3] = -0.0
    expected = per_example(torch.nn.Linear(33, 50, device=device), x, d)
    x[1, tokens // 2 :] = math.inf
    x[3] = math.nan
    fisher = torch.zeros(50, 33, device=device)
    ops.linear_square_accumulate_(fisher, x, d)
    close_to_float64(fisher, expected["weight"])


def test_linear_keeps_the_nan_of_a_gradient(device):
    x, d = torch.ones(2, 7, 3, device=device), torch.zeros(2, 7, 4, device=device)
    d[1, 5, 2] = math.nan
    fisher = torch.zeros(4, 3, device=device)
    ops.linear_square_accumulate_(fisher, x, d)
    assert fisher[2].isnan().all() and fisher.isnan().sum() == 3


def test_examples_are_neither_tokens_nor_the_batch(device):
    # (1 + 1)^2 + (1 + 1)^2 = 8: squares per token would give 4, per batch 16.
    ones = torch.ones(2, 2, 1, device=device)
    fisher = torch.zeros(1, 1, device=device)
    ops.linear_square_accumulate_(fisher, ones, ones)
    assert fisher.item() == 8


def test_sampled_labels_follow_the_probabilities(device):
    p = torch.tensor([0.5, 0.3, 0.0, 0.15, 0.05], device=device)
    count = 200_000
    labels = ops.sample_labels(
        p.expand(count, -1), torch.arange(count, device=device), seed=3
    )
    drawn = torch.bincount(labels, minlength=5).double() / count
    error = (p.double() * (1 - p.double()) / count).sqrt()
    assert (drawn - p).abs().le(5 * error).all()


def test_sampled_labels_do_not_depend_on_the_batch(device):
    p = torch.randn(1000, 7, device=device).softmax(-1)
    indices = torch.randperm(100_000, device=device)[:1000]
    labels = ops.sample_labels(p, indices, seed=1, sample=2)
    order = torch.randperm(1000, device=device)
    shuffled = [
        ops.sample_labels(p[part], indices[part], seed=1, sample=2)
        for part in order.split(17)
    ]
    assert torch.equal(torch.cat(shuffled), labels[order])
    # and equal the CPU's
    on_cpu = ops.sample_labels(p.cpu(), indices.cpu(), seed=1, sample=2)
    assert torch.equal(labels.cpu(), on_cpu)


def test_sampled_labels_depend_on_seed_and_sample(device):
    p = torch.full((1000, 2), 0.5, device=device)
    indices = torch.arange(1000, device=device)
    draws = [
        ops.sample_labels(p, indices, seed=seed, sample=sample).double()
        for seed, sample in ((0, 0), (1, 0), (0, 1), (2**62, 0))
    ]
    # Independent coins agree in half of the positions, up to 5 standard errors.
    for i in range(len(draws)):
        for j in range(i):
            assert abs((draws[i] == draws[j]).double().mean() - 0.5) < 0.08


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dropout_is_that_of_the_cpu(dtype, device):
    x = reals(37, 129, device=device).to(dtype)
    y = ops.dropout(x, 0.1, seed=4, stream=2)
    assert torch.equal(y.cpu(), ops.dropout(x.cpu(), 0.1, seed=4, stream=2))
    kept = y != 0
    expected = (x.double() / (1 - 6554 / 65536)).to(dtype)
    torch.testing.assert_close(y[kept], expected[kept])


def op_samples(device):
    """(operator, arguments) for opcheck, every operator at least once."""
    op = torch.ops.merganser
    flat = [reals(10, device=device).abs() for _ in range(5)]
    lists = [[x, torch.ones(3, 2, device=device)] for x in flat]
    scalars = ([1, 2], 1e-3, 0.9, 0.999, 1e-8, 0.1, 1.0, 1.0)
    x, d = reals(2, 3, 4, device=device), reals(2, 3, 5, device=device)
    ids = torch.randint(6, (2, 3), device=device)
    indices = torch.arange(2, device=device)
    probabilities = torch.full((2, 4), 0.25, device=device)
    numbers = ([1.0, 1.0], [2.0, 2.0], [0.5, 1.0], 1.0, 4, 1e-12, 0.5, 1e-6)
    vector = torch.zeros(5, device=device)
    yield op.square_accumulate_, (flat[0], flat[1], 0.5)
    yield op.square_accumulate_, (flat[0], flat[1].bfloat16(), 0.5)
    yield op.adam_fisher_step_, (*lists, *scalars)
    yield op.adam_fisher_step_, (*lists[:4], [], *scalars)
    yield op.merge, (flat[0], flat[1], flat[2:4], flat[3:5], *numbers)
    yield op.merge, (None, None, [x.half()], [], [1.0], [], [], 1.0, 0, 0.0, 0.5, 0.0)
    yield op.linear_square_accumulate_, (torch.zeros(5, 4, device=device), x, d, 1.0)
    halves = (x.bfloat16().repeat(1, 4, 1), d.bfloat16().repeat(1, 4, 1), 1.0)
    yield op.linear_square_accumulate_, (torch.zeros(5, 4, device=device), *halves)
    yield op.bias_square_accumulate_, (vector, d, 1.0)
    yield op.layer_norm_square_accumulate_, (vector, d, d, 1.0)
    table = torch.zeros(6, 5, device=device)
    yield op.embedding_square_accumulate_, (table, ids, d, 1.0, 0)
    yield op.sample_labels, (probabilities, indices, 0, 0)
    yield op.dropout, (x.requires_grad_(), 0.1, 0, 0)


@pytest.mark.slow
def test_opcheck(device):
    checked = set()
    for op, arguments in op_samples(device):
        opcheck(op.default, arguments)
        checked.add(op.__name__)
    names = {
        n.split("::")[1]
        for n in torch._C._dispatch_get_all_op_names()
        if n.startswith("merganser::")
    }
    assert checked == names - {"has_cuda"}


def test_no_other_operator_has_a_derivative(device):
    x = reals(4, device=device).requires_grad_()
    merged = ops.merge(None, [x], method="linear")
    with pytest.raises(RuntimeError, match="derivative for merganser::merge is not"):
        merged.sum().backward()


@pytest.mark.parametrize("name", ["square_accumulate_", "adam_fisher_step_"])
def test_a_change_in_place_is_seen_by_autograd(device, name):
    x = reals(4, device=device).requires_grad_()
    fisher, *others = (torch.ones(4, device=device) for _ in range(5))
    y = (x * fisher).sum()
    if name == "square_accumulate_":
        ops.square_accumulate_(fisher, others[0])
    else:  # the last of several lists
        lists = ([other] for other in others)
        ops.adam_fisher_step_(*lists, [fisher], steps=[1], lr=0.1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.backward()


def test_arguments_on_two_devices_are_refused():
    with pytest.raises(RuntimeError, match="square_accumulate_: grad must be on cpu"):
        ops.square_accumulate_(torch.zeros(3), torch.zeros(3, device="meta"))


def test_has_cuda_is_that_of_the_build():
    from merganser import _build

    assert ops.has_cuda() is (_build.CUDA is not None)


@pytest.mark.cuda
def test_cuda_runs_on_the_current_stream():
    fisher = torch.zeros(1 << 20, device="cuda")
    grad = torch.zeros(1 << 20, device="cuda")
    torch.cuda.synchronize()
    with torch.cuda.stream(torch.cuda.Stream()):
        torch.cuda._sleep(10_000_000)
        grad.fill_(2)
        ops.square_accumulate_(fisher, grad)
        result = fisher.clone()
    torch.cuda.synchronize()
    assert result.eq(4).all()


@pytest.mark.cuda
@pytest.mark.parametrize("method", [*METHODS, "measured_gradient_matching"])
def test_cuda_merge_has_the_bits_of_the_cpu(method):
    given = merge_inputs(65537, 3, torch.float32, "cpu")
    base, base_fisher, models, fishers, weights, scales = given
    with_fishers = method not in ("linear", "task_arithmetic")
    results = [
        ops.merge(
            base.to(device),
            [x.to(device) for x in models],
            [x.to(device) for x in fishers] if with_fishers else (),
            method=method,
            base_fisher=base_fisher.to(device),
            weights=weights,
            scales=scales if with_fishers else (),
            rhos=[0.3, 0.0, 1.5] if method == "measured_gradient_matching" else None,
        ).cpu()
        for device in ("cpu", "cuda")
    ]
    assert torch.equal(*results)
