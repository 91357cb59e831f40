"""Fishers of a language model compared with its forward and backward pass, in one run:

    PYTHONPATH=build/cpu/python python benchmarks/fisher_decoder.py

The configuration of SmolLM2-135M (30 layers, a vocabulary of 49,152, tied head) with
random weights, sequences of 64 tokens. Rounds interleave the plain passes with
merganser.fisher over the same batches; ratios are medians of those within a round.
A call with one batch less shows what a call does once (probing three examples).
"""

import argparse
import statistics
import time

import merganser
import torch
from transformers import LlamaConfig, LlamaForCausalLM

CONFIG = LlamaConfig(
    vocab_size=49152,
    hidden_size=576,
    intermediate_size=1536,
    num_hidden_layers=30,
    num_attention_heads=9,
    num_key_value_heads=3,
    tie_word_embeddings=True,
)
LENGTH = 64
ESTIMATORS = ("empirical", "mc")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[16, 4])
    parser.add_argument("--batches", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    model = LlamaForCausalLM(CONFIG).eval()
    print("| batches of | forward + backward, s | empirical | mc | once per call, s |")
    print("|---|--:|--:|--:|--:|")
    for size in arguments.batch_sizes:
        data = [random_batch(size) for _ in range(arguments.batches)]
        print(row(model, size, data, arguments.rounds), flush=True)


def random_batch(size):
    ids = torch.randint(CONFIG.vocab_size, (size, LENGTH))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids}


def row(model, size, data, rounds):
    """Cells of a table: seconds of the plain passes, ratios, seconds once per call."""
    plain, ratios, once = [], {name: [] for name in ESTIMATORS}, []
    for _ in range(rounds):
        plain.append(seconds(lambda: passes(model, data)))
        for name in ESTIMATORS:
            whole = seconds(lambda n=name: estimate(model, data, n))
            less = seconds(lambda n=name: estimate(model, data[1:], n))
            batch = whole - less
            ratios[name].append(batch * len(data) / plain[-1])
            once.append(whole - batch * len(data))
    median = statistics.median
    cells = [f"{median(ratios[name]):.2f}x" for name in ESTIMATORS]
    return (
        f"| {size} | {median(plain):.1f} | {' | '.join(cells)} | {median(once):.1f} |"
    )


def passes(model, data):
    for batch in data:
        model(**batch).loss.backward()
        model.zero_grad(set_to_none=True)


def estimate(model, data, estimator):
    merganser.fisher(model, data, estimator, loss="causal_lm")


def seconds(work):
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
