"""What merganser.hf.ProximalCallback adds to a step of transformers' Trainer.

    PYTHONPATH=build/cpu/python OMP_NUM_THREADS=1 python benchmarks/proximal_callback.py

MiniLM (6 layers, 384 wide), 16 texts of 64 tokens, gradients clipped, AdamW(fused).
Runs of a few steps take turns, without the callback and with each of its forms; a
figure is the median over rounds of the CPU time per step, "added" the median of the
rounds' ratios to the run without it. The first step of a run, which allocates, is left
out. Prints a Markdown table.
"""

import argparse
import statistics
import tempfile
import time

import torch
from adamw_fisher import BATCH_SIZE, MINILM, make_data
from merganser import FisherResult
from merganser.hf import ProximalCallback
from transformers import (
    BertForSequenceClassification,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

CASES = {  # number of Fishers, whether decoupled
    "no term": (0, False),
    "one Fisher": (1, False),
    "two Fishers": (2, False),
    "one Fisher, decoupled": (1, True),
}


class StepTimer(TrainerCallback):
    """CPU seconds of each step. The first callback, so that a step has all others."""

    def __init__(self):
        self.seconds = []

    def on_step_begin(self, args, state, control, **_):
        self.start = time.process_time()

    def on_step_end(self, args, state, control, **_):
        self.seconds.append(time.process_time() - self.start)


def make_fisher(model):
    """As large as a real one, so that no step overshoots."""
    diagonal = {n: 1e-6 * torch.rand(p.shape) for n, p in model.named_parameters()}
    return FisherResult(diagonal, 1000, 1000, "exact")


def seconds_per_step(folder, data, dtype, fishers, decoupled):
    torch.manual_seed(0)
    model = BertForSequenceClassification(MINILM)
    timer = StepTimer()
    callbacks = [timer]
    if fishers:
        given = [make_fisher(model) for _ in range(fishers)]
        callbacks.append(ProximalCallback(given, decoupled=decoupled))
    arguments = TrainingArguments(
        folder,
        per_device_train_batch_size=BATCH_SIZE,
        num_train_epochs=1,
        learning_rate=1e-6,
        optim="adamw_torch_fused",
        bf16=dtype == "bfloat16",
        logging_strategy="no",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
    )
    trainer = Trainer(model, arguments, train_dataset=data, callbacks=callbacks)
    trainer.remove_callback(PrinterCallback)  # it writes between the rows
    trainer.train()
    return statistics.median(timer.seconds[1:])


def print_rows(folder, dtype, rounds, steps):
    data = make_data(steps * BATCH_SIZE)
    times = {name: [] for name in CASES}
    for _ in range(rounds):
        for name, case in CASES.items():
            times[name].append(seconds_per_step(folder, data, dtype, *case))
    plain = next(iter(times.values()))
    for name, own in times.items():
        ratio = statistics.median(a / b for a, b in zip(own, plain, strict=True))
        added = "" if own is plain else f"{100 * (ratio - 1):+.1f} %"
        milliseconds = 1e3 * statistics.median(own)
        print(f"| {name} | {dtype} | {milliseconds:.0f} | {added} |", flush=True)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=9, help="of a run; at least 2")
    arguments = parser.parse_args()
    print("| proximal term | dtype | ms per step | added |")
    print("|---|---|--:|--:|", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for dtype in ("float32", "bfloat16"):
            print_rows(folder, dtype, arguments.rounds, arguments.steps)


if __name__ == "__main__":
    main()
