"""What benchmarks/gpu.py measures: each case is (name, bytes that must move, ours,
torch's own operations for the same or None). No two arguments share memory, or caches
would save what is counted."""

import torch
from merganser import ops
from torch.nn.functional import dropout

EXAMPLES, TOKENS = 32, 128
ROBERTA_BASE = ((768, 768), (3072, 768), (768, 3072))  # weights of linear layers
VOCABULARY, WIDTH = 50265, 768


def numbers(n, count, dtype=torch.float32):
    return [torch.rand(n, device="cuda").to(dtype) for _ in range(count)]


def square_accumulate(n, dtype):
    (fisher,), (grad,) = numbers(n, 1), numbers(n, 1, dtype)
    yield (
        f"square_accumulate_, {dtype}",
        (8 + grad.itemsize) * n,
        lambda: ops.square_accumulate_(fisher, grad, 0.5),
        lambda: fisher.addcmul_(grad, grad, value=0.5),
    )


def adam_fisher_step(n):
    param, grad, exp_avg, exp_avg_sq, fisher, peer = numbers(n, 6)
    parameter = torch.nn.Parameter(peer)
    parameter.grad = grad
    adamw = torch.optim.AdamW([parameter], lr=1e-5, fused=True)

    def torch_step():
        adamw.step()
        fisher.addcmul_(grad, grad)

    yield (
        "adam_fisher_step_",
        9 * 4 * n,
        lambda: ops.adam_fisher_step_(
            [param], [grad], [exp_avg], [exp_avg_sq], [fisher], lr=1e-5, steps=[10]
        ),
        torch_step,
    )


def merge(n, dtype):
    base, *models = numbers(n, 4, dtype)
    base_fisher, *fishers = numbers(n, 4)

    def torch_merge():
        bottom = h0 = base_fisher * 100 + 1e-12
        top = 0
        for theta, f in zip(models, fishers, strict=True):
            h = 10 * f
            top = top + (h0 + h) * (theta.float() - base.float())
            bottom = bottom + h
        return (base.float() + top / bottom).to(dtype)

    yield (
        f"merge, gradient_matching, 3 models, {dtype}",
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


def dropout_of_halves(n):
    (x,) = numbers(n, 1, torch.bfloat16)
    yield (
        f"dropout, {x.dtype}",
        4 * n,
        lambda: ops.dropout(x, 0.1, seed=1),
        lambda: dropout(x, 0.1),
    )


def per_token(dtype):
    shape = 4 * EXAMPLES, TOKENS, WIDTH
    d, x = (torch.randn(shape, device="cuda").to(dtype) for _ in range(2))
    ids = torch.randint(VOCABULARY, shape[:2], device="cuda")
    vector = torch.zeros(WIDTH, device="cuda")
    table = torch.zeros(VOCABULARY, WIDTH, device="cuda")
    read = d.itemsize * d.numel()
    rows = ids.unique().numel()
    yield (
        f"bias_square_accumulate_, {dtype}",
        read,
        lambda: ops.bias_square_accumulate_(vector, d),
        None,
    )
    yield (
        f"layer_norm_square_accumulate_, {dtype}",
        2 * read,
        lambda: ops.layer_norm_square_accumulate_(vector, x, d),
        None,
    )
    yield (
        f"embedding_square_accumulate_, {dtype}",
        read + 2 * 4 * WIDTH * rows,
        lambda: ops.embedding_square_accumulate_(table, ids, d),
        None,
    )


def memory_cases(n):
    """One after the other, so that the memory of one is free before the next."""
    yield from square_accumulate(n, torch.float32)
    yield from square_accumulate(n, torch.bfloat16)
    yield from adam_fisher_step(n)
    yield from merge(n, torch.float32)
    yield from merge(n, torch.bfloat16)
    yield from dropout_of_halves(n)
    yield from per_token(torch.float32)
    yield from per_token(torch.bfloat16)


def linear(outer, inner, dtype):
    """(weight, multiplications and additions, ours, the plain product)."""
    x = torch.randn(EXAMPLES, TOKENS, inner, device="cuda").to(dtype)
    d = torch.randn(EXAMPLES, TOKENS, outer, device="cuda").to(dtype)
    fisher = torch.zeros(outer, inner, device="cuda")
    flat_x, flat_d = x.flatten(0, 1), d.flatten(0, 1)
    return (
        f"{outer} x {inner}",
        2 * flat_x.numel() * outer,
        lambda: ops.linear_square_accumulate_(fisher, x, d),
        lambda: flat_d.t() @ flat_x,
    )
