"""Cases that benchmarks/ops.py measures on a CPU and benchmarks/gpu.py on a GPU.

Each case of memory_cases and token_cases is (name, bytes that must move, ours, torch's
own operations for the same or None). They come one after the other, so that the memory
of one is free before the next; no two arguments share memory, or caches would save what
is counted."""

import torch
from merganser import ops
from torch.nn.functional import dropout


def numbers(count, n, device, dtype=torch.float32):
    return [torch.rand(n, device=device).to(dtype) for _ in range(count)]


def named(name, dtype):
    return name if dtype == torch.float32 else f"{name}, {dtype}".replace("torch.", "")


def square_accumulate(n, device, dtype):
    (fisher,), (grad,) = numbers(1, n, device), numbers(1, n, device, dtype)

    def torch_square():
        if dtype == fisher.dtype:
            fisher.addcmul_(grad, grad, value=0.5)
        else:
            fisher.add_(grad.float().square_(), alpha=0.5)

    yield (
        named("square_accumulate_", dtype),
        (8 + grad.itemsize) * n,
        lambda: ops.square_accumulate_(fisher, grad, 0.5),
        torch_square,
    )


def adam_fisher_step(n, device, count):
    """n elements in `count` tensors."""
    size = n // count
    params, grads, exp_avgs, exp_avg_sqs, fishers, peers = (
        numbers(count, size, device) for _ in range(6)
    )
    parameters = [torch.nn.Parameter(peer) for peer in peers]
    for parameter, grad in zip(parameters, grads, strict=True):
        parameter.grad = grad
    adamw = torch.optim.AdamW(parameters, lr=1e-5, fused=True)

    def torch_step():
        adamw.step()
        torch._foreach_addcmul_(fishers, grads, grads)

    yield (
        "adam_fisher_step_" + (f", {count} tensors" if count > 1 else ""),
        9 * 4 * size * count,
        lambda: ops.adam_fisher_step_(
            params, grads, exp_avgs, exp_avg_sqs, fishers, steps=[10] * count, lr=1e-5
        ),
        torch_step,
    )


def merge(n, device, dtype):
    base, *models = numbers(4, n, device, dtype)
    base_fisher, *fishers = numbers(4, n, device)

    def torch_merge():
        bottom = h0 = base_fisher * 100 + 1e-12
        top = 0
        for theta, f in zip(models, fishers, strict=True):
            h = 10 * f
            top = top + (h0 + h) * (theta.float() - base.float())
            bottom = bottom + h
        return (base.float() + top / bottom).to(dtype)

    yield (
        named("merge, gradient_matching, 3 models", dtype),
        (5 * base.itemsize + 4 * 4) * n,
        lambda: ops.merge(
            base,
            models,
            fishers,
            method="gradient_matching",
            base_fisher=base_fisher,
            scales=[10.0] * 3,
            base_scale=100,
        ),
        torch_merge,
    )


def dropout_of_halves(n, device):
    (x,) = numbers(1, n, device, torch.bfloat16)
    yield (
        named("dropout", x.dtype),
        4 * n,
        lambda: ops.dropout(x, 0.1, seed=1),
        lambda: dropout(x, 0.1),
    )


def memory_cases(n, device):
    yield from square_accumulate(n, device, torch.float32)
    yield from square_accumulate(n, device, torch.bfloat16)
    yield from adam_fisher_step(n, device, 1)
    yield from adam_fisher_step(n, device, 200)
    yield from merge(n, device, torch.float32)
    yield from merge(n, device, torch.bfloat16)
    yield from dropout_of_halves(n, device)


def token_cases(shape, vocabulary, device, dtype):
    """shape: examples, tokens, channels."""
    d, x = (torch.randn(shape, device=device).to(dtype) for _ in range(2))
    ids = torch.randint(vocabulary, shape[:2], device=device)
    vector = torch.zeros(shape[2], device=device)
    table = torch.zeros(vocabulary, shape[2], device=device)
    read = d.itemsize * d.numel()
    yield (
        named("bias_square_accumulate_", dtype),
        read,
        lambda: ops.bias_square_accumulate_(vector, d),
        None,
    )
    yield (
        named("layer_norm_square_accumulate_", dtype),
        2 * read,
        lambda: ops.layer_norm_square_accumulate_(vector, x, d),
        None,
    )
    yield (
        named("embedding_square_accumulate_", dtype),
        read + 2 * 4 * shape[2] * ids.unique().numel(),
        lambda: ops.embedding_square_accumulate_(table, ids, d),
        None,
    )


def linear_case(examples, tokens, weight, device, dtype, padding=0.0):
    """(multiplications and additions, ours, the plain product). A share of every
    example's tokens has no gradient; the product takes them all."""
    outer, inner = weight
    x = torch.randn(examples, tokens, inner, device=device).to(dtype)
    d = torch.randn(examples, tokens, outer, device=device).to(dtype)
    d[:, round(tokens * (1 - padding)) :] = 0
    fisher = torch.zeros(weight, device=device)
    flat_x, flat_d = x.flatten(0, 1), d.flatten(0, 1)
    return (
        2 * flat_x.numel() * outer,
        lambda: ops.linear_square_accumulate_(fisher, x, d),
        lambda: flat_d.t() @ flat_x,
    )
