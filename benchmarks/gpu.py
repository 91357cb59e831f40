"""The operators on a GPU compared with the memory's speed and torch's operations:

    PYTHONPATH=build/cuda/python python benchmarks/gpu.py [--json FILE]

The contestants take turns; times are medians of CUDA events. "of copy" is the share
of the bandwidth that a copy of as many float32 elements reaches in the same turns.
Merges are compared with the same formula in torch, eager and compiled; the Adam step
with torch's fused AdamW and an accumulation after it; linear layers with the plain
product that gives the gradient of their weight. Prints Markdown tables.
"""

import argparse
import itertools
import json
import statistics
from pathlib import Path

import torch
from op_cases import linear_case, memory_cases, token_cases

ROUNDS = 15
# roberta-base: tokens that are many enough to be read at the memory's speed, and the
# weights of its linear layers.
TOKENS = {"shape": (128, 128, 768), "vocabulary": 50265}
WEIGHTS = ((768, 768), (3072, 768), (768, 3072))


def times(calls, **functions):
    """{name: median milliseconds of a call}; `calls` in a row are timed at once, so
    that what is short is not the time of its launch."""
    events = {name: [] for name in functions}
    for turn in range(ROUNDS + 2):
        for name, function in functions.items():
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            for _ in range(calls):
                function()
            end.record()
            if turn >= 2:  # after two turns of warming up
                events[name].append((start, end))
        torch.cuda.synchronize()
    return {
        name: statistics.median(a.elapsed_time(b) for a, b in pairs) / calls
        for name, pairs in events.items()
    }


def memory_rows(elements):
    source = torch.rand(elements, device="cuda")
    target = torch.empty_like(source)
    cases = itertools.chain(
        memory_cases(elements, "cuda"),
        token_cases(**TOKENS, device="cuda", dtype=torch.float32),
        token_cases(**TOKENS, device="cuda", dtype=torch.bfloat16),
    )
    for name, moved, ours, peer in cases:
        peers = {"torch": peer} if peer else {}
        if name.startswith("merge"):
            peers["compiled"] = torch.compile(peer)
        ms = times(10, copy=lambda: target.copy_(source), ours=ours, **peers)
        yield {
            "operator": name,
            "ms": ms["ours"],
            "GB/s": moved / ms["ours"] / 1e6,
            "of copy": moved / ms["ours"] / (8 * elements / ms["copy"]),
            "torch / ours": ms["torch"] / ms["ours"] if peer else None,
            "compiled / ours": ms["compiled"] / ms["ours"] if len(peers) > 1 else None,
        }


def linear_rows():
    for dtype in (torch.bfloat16, torch.float32):
        for weight in WEIGHTS:
            flops, ours, product = linear_case(32, 128, weight, "cuda", dtype)
            ms = times(20, ours=ours, product=product)
            yield {
                "weight": "{} x {}".format(*weight),
                "dtype": str(dtype).removeprefix("torch."),
                "ms": ms["ours"],
                "TFLOP/s": flops / ms["ours"] / 1e9,
                "product, TFLOP/s": flops / ms["product"] / 1e9,
                "ours / product": ms["ours"] / ms["product"],
            }


def table(rows):
    def cell(value):
        return f"{value:.3g}" if isinstance(value, float) else value or ""

    kept = []
    for row in rows:
        if not kept:
            print("| " + " | ".join(row) + " |\n|" + " --- |" * len(row))
        print("| " + " | ".join(map(cell, row.values())) + " |", flush=True)
        kept.append(row)
    print()
    return kept


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--elements", type=int, default=125_000_000)
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}\n")
    results = {
        "memory": table(memory_rows(arguments.elements)),
        "linear": table(linear_rows()),
    }
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    with torch.no_grad():
        main()
