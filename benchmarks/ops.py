"""Each operator compared with its floor or its peer, timed in turns in one run:

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
import itertools
import statistics
import time

import torch
from op_cases import linear_case, memory_cases, token_cases

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


def linear(tokens, weight, dtype, padding=0.0):
    flops, ours, gemm = linear_case(32, tokens, weight, "cpu", dtype, padding)
    ours, gemm = times(ours, gemm)
    row(
        "{} x {}".format(*weight),
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
    cases = itertools.chain(
        memory_cases(arguments.elements, "cpu"),
        token_cases((512, 128, 384), 30522, "cpu", torch.float32),
    )
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
        for weight in ((384, 384), (1536, 384), (384, 1536)):
            for tokens in (24, 32, 64, 128, 384):
                linear(tokens, weight, dtype)
            linear(128, weight, dtype, padding=0.5)


if __name__ == "__main__":
    with torch.no_grad():
        main()
