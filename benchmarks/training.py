"""Fine-tuning and Fishers, compared with transformers and torch's AdamW in one run:

    PYTHONPATH=build/cpu/python python benchmarks/training.py

Both train the demo's encoder on the demo's movie snippets (scripts/fetch_data data),
with the same batches in the same order, dropout, clipping and the same schedule.
They take turns; the figures are medians of examples per second. The exact Fisher of
two classes is compared with one forward and backward pass of transformers over the
Fisher's batches. Prints a Markdown table.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import merganser
import torch
from merganser._C import batch_order
from torch.nn.functional import cross_entropy
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    get_linear_schedule_with_warmup,
)

BATCH_SIZE = 32
MAX_LENGTH = 64


class Peer:
    """transformers' model, torch.optim.AdamW in its fastest form."""

    def __init__(self, model, data, dtype, steps):
        self.model = AutoModelForSequenceClassification.from_pretrained(
            model, num_labels=2
        )
        self.dtype = dtype
        with open(data) as lines:
            rows = [json.loads(line) for line in lines]
        encoded = AutoTokenizer.from_pretrained(model)(
            [row["text"] for row in rows], truncation=True, max_length=MAX_LENGTH
        ).input_ids
        order = batch_order([len(ids) for ids in encoded], BATCH_SIZE, 0, 0)
        order = order[:steps]
        self.batches = [self.pad(encoded, rows, batch) for batch in order]
        # The order in which a Fisher takes the same texts: longest first.
        texts = sorted(sum(order, []), key=lambda i: -len(encoded[i]))
        self.ids = [encoded[i] for i in texts]
        self.labels = [rows[i]["label"] for i in texts]
        self.sorted = [
            self.pad(encoded, rows, texts[i : i + BATCH_SIZE])
            for i in range(0, len(texts), BATCH_SIZE)
        ]

    @staticmethod
    def pad(encoded, rows, batch):
        ids = [torch.tensor(encoded[i]) for i in batch]
        return (
            torch.nn.utils.rnn.pad_sequence(ids, batch_first=True),
            torch.tensor([rows[i]["label"] for i in batch]),
        )

    def loss(self, ids, labels, mode="mean"):
        enabled = self.dtype == "bfloat16"
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            logits = self.model(ids, attention_mask=(ids != 0).long()).logits
        return cross_entropy(logits.float(), labels, reduction=mode)

    def train(self, steps):
        self.model.train()
        optimizer = torch.optim.AdamW(self.model.parameters(), lr=2e-5, fused=True)
        schedule = get_linear_schedule_with_warmup(optimizer, 0, steps)
        start = time.perf_counter()
        for ids, labels in self.batches[:steps]:
            self.loss(ids, labels).backward()
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
        return steps * BATCH_SIZE / (time.perf_counter() - start)

    def passes(self):
        self.model.eval()
        start = time.perf_counter()
        for ids, labels in self.sorted:
            self.loss(ids, labels, "sum").backward()
        return len(self.ids) / (time.perf_counter() - start)


def train(model, data, dtype, steps):
    with tempfile.TemporaryDirectory() as folder:
        result = merganser.Trainer(
            model,
            data,
            Path(folder) / "out",
            num_labels=2,
            max_length=MAX_LENGTH,
            batch_size=BATCH_SIZE,
            dtype=dtype,
            max_steps=steps,
        ).train()
    return result["examples"] / result["seconds"]


def fisher(model, peer):
    encoder = merganser._C.Encoder.load(model, num_labels=2)
    examples = merganser._C.Dataset(peer.ids, peer.labels)
    start = time.perf_counter()
    merganser._C.estimate_fisher(
        encoder,
        examples,
        0,
        batch_size=BATCH_SIZE,
        bfloat16=peer.dtype == "bfloat16",
    )
    return len(examples) / (time.perf_counter() - start)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    model = arguments.data / "all-MiniLM-L6-v2"
    data = arguments.data / "snippets" / "movie" / "train.jsonl"
    steps = arguments.steps

    print("| | dtype | transformers | Merganser | ratio |")
    print("|---|---|--:|--:|--:|")
    for dtype in ("float32", "bfloat16"):
        peer = Peer(model, data, dtype, steps)
        peer.train(4)  # warms up
        contests = {
            "fine-tuning": (
                lambda peer=peer: peer.train(steps),
                lambda dtype=dtype: train(model, data, dtype, steps),
            ),
            "exact Fisher, compared with forward + backward": (
                peer.passes,
                lambda peer=peer: fisher(model, peer),
            ),
        }
        for name, (theirs, ours) in contests.items():
            rates = [(theirs(), ours()) for _ in range(arguments.rounds)]
            a, b = (statistics.median(side) for side in zip(*rates, strict=True))
            ratio = statistics.median(y / x for x, y in rates)
            print(f"| {name} | {dtype} | {a:.0f}/s | {b:.0f}/s | {ratio:.2f} |")


if __name__ == "__main__":
    main()
