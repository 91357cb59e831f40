"""AdamWFisher compared with torch's fused AdamW, and what a Fisher adds to training:

    PYTHONPATH=build/cpu/python python benchmarks/adamw_fisher.py [--repeats 15]

The step: all parameters of MiniLM (6 layers, 384 wide) and of roberta-base, random, on
two threads. AdamW moves 7 float32 per element (reads parameter, gradient and two
moments, writes all but the gradient), with the Fisher 9; "ratio" is the time as a
multiple of AdamW's for as many bytes. Training: MiniLM, 16 texts of 64 tokens,
float32, gradients clipped; a loop of its own, and transformers' Trainer with
FisherCallback. The contestants take turns; figures are medians. Prints Markdown
tables.
"""

import argparse
import statistics
import tempfile
import time

import torch
from merganser.adamw_fisher import AdamWFisher
from merganser.hf import FisherCallback
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    PrinterCallback,
    RobertaConfig,
    RobertaForSequenceClassification,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

MINILM = BertConfig(
    hidden_size=384,
    num_hidden_layers=6,
    num_attention_heads=12,
    intermediate_size=1536,
    max_position_embeddings=512,
)
ROBERTA_BASE = RobertaConfig(
    vocab_size=50265, max_position_embeddings=514, type_vocab_size=1
)
BATCH_SIZE = 16
TOKENS = 64
STEPS = 24  # of a turn of training; online_mc takes extra passes in six of them


def row(*cells):
    print("| " + " | ".join(cells) + " |", flush=True)


def medians(repeats, functions):
    """Seconds of each, the median over turns; the first turn warms up."""
    times = [[] for _ in functions]
    for _ in range(repeats + 1):
        for function, seconds in zip(functions, times, strict=True):
            start = time.perf_counter()
            function()
            seconds.append(time.perf_counter() - start)
    return [statistics.median(seconds[1:]) for seconds in times]


def step_table(repeats):
    row("parameters of", "optimiser", "ms", "GB/s", "ratio")
    row(*["---"] * 5)
    for name, kind, config in [
        ("MiniLM", BertForSequenceClassification, MINILM),
        ("roberta-base", RobertaForSequenceClassification, ROBERTA_BASE),
    ]:
        with torch.device("meta"):
            shapes = [p.shape for p in kind(config).parameters()]
        parameters = [torch.nn.Parameter(0.02 * torch.randn(s)) for s in shapes]
        for p in parameters:
            p.grad = 1e-3 * torch.randn(p.shape)
        count = sum(p.numel() for p in parameters)
        reference = torch.optim.AdamW(parameters, lr=1e-6, fused=True)
        plain = AdamWFisher(parameters, lr=1e-6, collect_fisher=False)
        collecting = AdamWFisher(parameters, lr=1e-6)
        collecting.batch_size = BATCH_SIZE
        times = medians(repeats, [reference.step, plain.step, collecting.step])
        for label, seconds, floats in zip(
            ("AdamW(fused=True)", "AdamWFisher, not collecting", "AdamWFisher"),
            times,
            (7, 7, 9),
            strict=True,
        ):
            row(
                f"{name} ({count / 1e6:.0f}M)",
                label,
                f"{1e3 * seconds:.1f}",
                f"{4 * floats * count / seconds / 1e9:.1f}",
                f"{seconds / (times[0] * floats / 7):.2f}",
            )


def make_loop(fisher):
    """A training step of a plain loop."""
    torch.manual_seed(0)
    model = BertForSequenceClassification(MINILM)
    batch = torch.utils.data.default_collate(make_data(BATCH_SIZE))
    if fisher:
        optimizer = AdamWFisher(model.named_parameters(), lr=1e-6, max_grad_norm=1.0)
        optimizer.batch_size = BATCH_SIZE
    else:
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, fused=True)

    def step():
        model(**batch).loss.backward()
        if not fisher:
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


def make_data(count):
    generator = torch.Generator().manual_seed(1)
    size = (count, TOKENS)
    ids = torch.randint(1000, MINILM.vocab_size, size, generator=generator)
    return [{"input_ids": row, "labels": i % 2} for i, row in enumerate(ids)]


class StepTimer(TrainerCallback):
    """Seconds between the begin of the first step and the end of the last."""

    def on_step_begin(self, args, state, control, **_):
        if state.global_step == 0:
            self.start = time.perf_counter()

    def on_step_end(self, args, state, control, **_):
        self.seconds = time.perf_counter() - self.start


def trainer_times(repeats, folder, cases):
    """Seconds per step of a Trainer's run of STEPS steps, for each case."""
    data = make_data(STEPS * BATCH_SIZE)
    times = [[] for _ in cases]
    for _ in range(repeats + 1):
        for (estimator, ours), seconds in zip(cases, times, strict=True):
            torch.manual_seed(0)
            model = BertForSequenceClassification(MINILM)
            timer = StepTimer()
            callbacks = [FisherCallback(estimator)] if estimator else []
            arguments = TrainingArguments(
                folder,
                per_device_train_batch_size=BATCH_SIZE,
                num_train_epochs=1,
                learning_rate=1e-6,
                optim="adamw_torch_fused",
                logging_strategy="no",
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
                use_cpu=True,
            )
            optimizer = AdamWFisher(model.parameters(), lr=1e-6) if ours else None
            trainer = Trainer(
                model,
                arguments,
                train_dataset=data,
                callbacks=[*callbacks, timer],
                optimizers=(optimizer, None),
            )
            trainer.remove_callback(PrinterCallback)  # it writes between the tables
            trainer.train()
            seconds.append(timer.seconds / STEPS)
    return [statistics.median(seconds[1:]) for seconds in times]


def training_table(repeats):
    row("training", "ms per step", "added")
    row(*["---"] * 3)
    times = medians(repeats, [make_loop(fisher=False), make_loop(fisher=True)])
    loops = ("loop, AdamW(fused=True)", "loop, AdamWFisher")
    cases = {
        "Trainer, AdamW(fused=True)": (None, False),
        "Trainer, AdamWFisher, FisherCallback('adam')": ("adam", True),
        "Trainer, AdamW(fused=True), FisherCallback('adam')": ("adam", False),
        "Trainer, AdamW(fused=True), FisherCallback('online_mc_eval')": (
            "online_mc_eval",
            False,
        ),
        "Trainer, AdamW(fused=True), FisherCallback('online_mc')": (
            "online_mc",
            False,
        ),
    }
    with tempfile.TemporaryDirectory() as folder:
        runs = trainer_times(max(1, repeats // 5), folder, cases.values())
    for labels, seconds in ((loops, times), (cases, runs)):
        for label, value in zip(labels, seconds, strict=True):
            added = 100 * (value / seconds[0] - 1)
            row(label, f"{1e3 * value:.0f}", f"{added:+.1f} %")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=15)
    arguments = parser.parse_args()
    torch.set_num_threads(2)
    step_table(arguments.repeats)
    print()
    training_table(arguments.repeats)


if __name__ == "__main__":
    main()
