"""The cost of merganser.linearize as a multiple of ordinary training.

    PYTHONPATH=build/cpu/python OMP_NUM_THREADS=1 python benchmarks/linearize.py

A forward and a backward pass, and a step of AdamW(fused), of 16 texts of 64 tokens:
BERT and RoBERTa of MiniLM's size and GPT-2 (6 layers, 384 wide) as classifiers, without
dropout. The ordinary and the first-order model take turns, step by step; figures are
medians of CPU times, ratios medians of the turns' ratios. Prints a Markdown table.
"""

import argparse
import statistics
import time

import merganser
import torch
from adamw_fisher import BATCH_SIZE, MINILM, make_data
from transformers import (
    BertForSequenceClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
)

SIZE = {
    "hidden_size": MINILM.hidden_size,
    "num_hidden_layers": MINILM.num_hidden_layers,
    "num_attention_heads": MINILM.num_attention_heads,
    "intermediate_size": MINILM.intermediate_size,
}
MODELS = {
    "BERT": lambda: BertForSequenceClassification(MINILM),
    "RoBERTa": lambda: RobertaForSequenceClassification(RobertaConfig(**SIZE)),
    "GPT-2": lambda: GPT2ForSequenceClassification(
        GPT2Config(n_embd=384, n_layer=6, n_head=12, pad_token_id=0)
    ),
}


class Contestant:
    """Training of a model on one batch."""

    def __init__(self, model, dtype):
        self.model = model
        self.dtype = dtype
        self.batch = torch.utils.data.default_collate(make_data(BATCH_SIZE))
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, fused=True)

    def step(self):
        """CPU seconds of the passes, and of all."""
        start = time.process_time()
        with torch.autocast("cpu", self.dtype, self.dtype != torch.float32):
            loss = self.model(**self.batch).loss
        loss.backward()
        passes = time.process_time() - start
        self.optimizer.step()
        self.optimizer.zero_grad()
        return passes, time.process_time() - start


def print_rows(name, dtype, steps):
    torch.manual_seed(0)
    model = MODELS[name]().eval()  # no dropout, as in the first-order model
    contestants = [Contestant(m, dtype) for m in (model, merganser.linearize(model))]
    for contestant in contestants:
        contestant.step()  # allocates
    turns = [[c.step() for c in contestants] for _ in range(steps)]
    for i, what in enumerate(("forward and backward", "step")):
        ordinary, linear = zip(*((a[i], b[i]) for a, b in turns), strict=True)
        ratio = statistics.median(b / a for a, b in zip(ordinary, linear, strict=True))
        cells = [name, str(dtype).removeprefix("torch."), what]
        cells += [f"{1e3 * statistics.median(x):.0f}" for x in (ordinary, linear)]
        print(f"| {' | '.join([*cells, f'{ratio:.2f}'])} |", flush=True)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=15)
    arguments = parser.parse_args()
    print("| model | dtype | | ordinary, ms | linearized, ms | ratio |")
    print("|---|---|---|--:|--:|--:|", flush=True)
    for name in MODELS:
        for dtype in (torch.float32, torch.bfloat16):
            print_rows(name, dtype, arguments.steps)


if __name__ == "__main__":
    main()
