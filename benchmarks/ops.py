"""Each operator beside its floor or its peer, timed alternately in one run:

    PYTHONPATH=build/cpu/python python benchmarks/ops.py

For what moves memory: the share of the bandwidth of a copy of the same size.
For linear layers: the time as a multiple of the plain weight-gradient GEMM of
the same shapes, also with half of the tokens padding. For the Adam step and
merge: also the time of torch's own operations for the same as a multiple of
ours. All run on one thread of a CPU (benchmarks/gpu.py: on a GPU) and are timed by
what it takes of its core, so that other work on the machine matters little. Prints
Markdown tables.
"""

import argparse
import statistics
import time

import torch
from merganser import ops

REPEATS = 15


def times(*functions):
    """The median time of each, seconds; alternately, so that what else the machine
    does meets all of them."""
    seconds = [[] for _ in functions]
    for repeat in range(REPEATS + 2):
        for i, function in enumerate(functions):
            start = time.thread_time()
            function()
            if repeat >= 2:  # after two rounds of warming up
                seconds[i].append(time.thread_time() - start)
    return [statistics.median(of_one) for of_one in seconds]


def row(*cells):
    print("| " + " | ".join(cells) + " |", flush=True)


def elementwise(n):
    """(name, bytes moved, ours, torch's for the same)."""
    fisher, grad, param, exp_avg, out = (torch.rand(n) for _ in range(5))
    exp_avg_sq = torch.rand(n)
    half = grad.bfloat16()
    size = 4 * n
    yield (
        "square_accumulate_",
        3 * size,
        lambda: ops.square_accumulate_(fisher, grad, 0.5),
        lambda: fisher.addcmul_(grad, grad, value=0.5),
    )
    yield (
        "square_accumulate_, bfloat16",
        2.5 * size,
        lambda: ops.square_accumulate_(fisher, half, 0.5),
        lambda: fisher.add_(half.float().square_(), alpha=0.5),
    )
    parameter = torch.nn.Parameter(param.clone())
    parameter.grad = grad
    adamw = torch.optim.AdamW([parameter], lr=1e-5, fused=True)

    def torch_step():
        adamw.step()
        fisher.addcmul_(grad, grad)

    yield (
        "adam_fisher_step_",
        9 * size,
        lambda: ops.adam_fisher_step_(
            [param], [grad], [exp_avg], [exp_avg_sq], [fisher], lr=1e-5, steps=[10]
        ),
        torch_step,
    )
    models, fishers = [param, exp_avg, out], [fisher, exp_avg_sq, param]

    def torch_merge():
        top, bottom = 0, fisher * 100 + 1e-12
        h0 = bottom
        for theta, f in zip(models, fishers, strict=True):
            h = 10 * f
            top = top + (h0 + h) * (theta - grad)
            bottom = bottom + h
        return grad + top / bottom

    yield (
        "merge, gradient_matching, 3 models",
        9 * size,
        lambda: ops.merge(
            grad,
            models,
            fishers,
            method="gradient_matching",
            base_fisher=fisher,
            scales=[10.0] * 3,
            base_scale=100,
        ),
        torch_merge,
    )


def per_token(examples, tokens, channels):
    """(name, bytes read, ours)."""
    d = torch.randn(examples, tokens, channels)
    x = torch.randn_like(d)
    ids = torch.randint(30522, (examples, tokens))
    vector = torch.zeros(channels)
    table = torch.zeros(30522, channels)
    size = 4 * d.numel()
    yield (
        "bias_square_accumulate_",
        size,
        lambda: ops.bias_square_accumulate_(vector, d),
    )
    yield (
        "layer_norm_square_accumulate_",
        2 * size,
        lambda: ops.layer_norm_square_accumulate_(vector, x, d),
    )
    yield (
        "embedding_square_accumulate_",
        3 * size,  # almost every token has a row of its own to read and write
        lambda: ops.embedding_square_accumulate_(table, ids, d),
    )


def linear(examples, tokens, inner, outer, dtype, padding=0.0):
    """A share of every example's tokens has no gradient; the GEMM takes them all."""
    x = torch.randn(examples, tokens, inner).to(dtype)
    d = torch.randn(examples, tokens, outer).to(dtype)
    d[:, round(tokens * (1 - padding)) :] = 0
    fisher = torch.zeros(outer, inner)
    flat_x, flat_d = x.view(-1, inner), d.view(-1, outer)
    ours, gemm = times(
        lambda: ops.linear_square_accumulate_(fisher, x, d),
        lambda: flat_d.t() @ flat_x,
    )
    flops = 2 * flat_x.numel() * outer
    row(
        f"{outer} x {inner}",
        str(tokens),
        f"{padding:.0%}",
        str(dtype).removeprefix("torch."),
        f"{flops / gemm / 1e9:.0f}",
        f"{flops / ours / 1e9:.0f}",
        f"{ours / gemm:.2f}",
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--elements", type=int, default=22_000_000)
    arguments = parser.parse_args()
    torch.set_num_threads(1)

    source = torch.rand(arguments.elements)
    target = torch.empty_like(source)

    def copy():
        target.copy_(source)

    row("operator", "GB/s", "share of a copy", "torch's time / ours")
    row(*["---"] * 4)
    cases = [*elementwise(arguments.elements)]
    cases += [(*case, None) for case in per_token(512, 128, 384)]
    for name, size, ours, peer in cases:
        seconds = times(ours, copy, *([peer] if peer else []))
        bandwidth = size / seconds[0]
        copied = 2 * 4 * arguments.elements / seconds[1]
        row(
            f"`{name}`",
            f"{bandwidth / 1e9:.1f}",
            f"{bandwidth / copied:.2f}",
            f"{seconds[2] / seconds[0]:.2f}" if peer else "",
        )
    print()
    row(
        "weight",
        "L",
        "padding",
        "dtype",
        "GEMM, GFLOP/s",
        "ours, GFLOP/s",
        "ours / GEMM, time",
    )
    row(*["---"] * 7)
    for dtype in (torch.float32, torch.bfloat16):
        for outer, inner in ((384, 384), (1536, 384), (384, 1536)):
            for tokens in (24, 32, 64, 128, 384):
                linear(32, tokens, inner, outer, dtype)
            linear(32, 128, inner, outer, dtype, padding=0.5)


if __name__ == "__main__":
    with torch.no_grad():
        main()
