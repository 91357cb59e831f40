"""The cost of linearized training as a multiple of ordinary training, in one run.

    PYTHONPATH=build/cpu/python python benchmarks/training_linearized.py

Needs what scripts/demo leaves behind. Trains the demo's encoder on the tweets and
measures CPU time per step; contestants take turns, and a ratio is the median of the
rounds' ratios to training without dropout. Then the gradient of one batch alone, the
first-order model's by double backward: the derivative in u of <J^T u, tau>, instead of
a forward pass in forward mode. Prints Markdown tables.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import merganser
import torch
from torch.nn.functional import cross_entropy

SETTINGS = {"num_labels": 2, "max_length": 64, "batch_size": 32, "lr": 3e-5, "seed": 1}
CONTESTANTS = {
    "ordinary, without dropout": {"dropout": 0.0},
    "ordinary, dropout 0.1": {"dropout": 0.1},
    "linearized": {"linearized": True},
}
WARM_UP, STEPS = 4, 24


def seconds_per_step(model, data, **options):
    times = []
    with tempfile.TemporaryDirectory() as folder:
        trainer = merganser.Trainer(
            model, data, Path(folder) / "out", max_steps=STEPS, **SETTINGS, **options
        )
        trainer.train(lambda *_: times.append(time.process_time()))
    return (times[STEPS - 1] - times[WARM_UP - 1]) / (STEPS - WARM_UP)


class Gradient:
    """Gradient of the loss of one batch of 32 random examples of 24 tokens."""

    def __init__(self, model):
        self.encoder = merganser._C.Encoder.load(model, num_labels=2).eval()
        self.parameters = [p for _, p in self.encoder.named_parameters()]
        self.tau = [1e-3 * torch.randn_like(p) for p in self.parameters]
        self.ids = torch.randint(1000, 20000, (32, 24))
        self.lengths = torch.full((32,), 24)
        self.labels = torch.randint(0, 2, (32,))

    def ordinary(self):
        logits = self.encoder.forward(self.ids, self.lengths)
        torch.autograd.grad(cross_entropy(logits, self.labels), self.parameters)

    def double_backward(self):
        logits = self.encoder.forward(self.ids, self.lengths)
        u = torch.zeros_like(logits, requires_grad=True)
        pulled = torch.autograd.grad(logits, self.parameters, u, create_graph=True)
        inner = sum((a * b).sum() for a, b in zip(pulled, self.tau, strict=True))
        (slope,) = torch.autograd.grad(inner, u, retain_graph=True)
        loss = cross_entropy(logits + slope, self.labels)
        torch.autograd.grad(loss, self.parameters)


def cpu_seconds(work):
    start = time.process_time()
    work()
    return time.process_time() - start


def print_table(contestants, rounds):
    """`contestants`: pairs of a row's first cells and a function that gives seconds."""
    times = {row: [] for row in contestants}
    for _ in range(rounds):
        for row, seconds in contestants.items():
            times[row].append(seconds())
    plain = next(iter(times.values()))
    for row, own in times.items():
        ratio = statistics.median(a / b for a, b in zip(own, plain, strict=True))
        print(f"| {row} | {1e3 * statistics.median(own):.0f} | {ratio:.2f} |")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--out", type=Path, default=Path("out/snippets"))
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    model = arguments.out / "models" / "base"
    data = arguments.data / "snippets" / "tweets" / "train.jsonl"
    print("| | ms per step | ratio |")
    print("|---|--:|--:|", flush=True)
    for dtype in ("float32", "bfloat16"):
        contestants = {
            f"{name}, {dtype}": lambda options=options, dtype=dtype: seconds_per_step(
                model, data, dtype=dtype, **options
            )
            for name, options in CONTESTANTS.items()
        }
        print_table(contestants, arguments.rounds)
    gradient = Gradient(model)
    gradient.ordinary()  # warms up
    gradients = {
        "gradient of a batch": lambda: cpu_seconds(gradient.ordinary),
        "by double backward": lambda: cpu_seconds(gradient.double_backward),
    }
    print_table(gradients, arguments.rounds)


if __name__ == "__main__":
    main()
