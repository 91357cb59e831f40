"""Fishers that merganser train collects: their cost and their error, in one run.

    PYTHONPATH=build/cpu/python python benchmarks/training_fisher.py

Needs what scripts/demo leaves behind. Compares Fishers with the exact one of the same
model on the same texts, all tweets: first those of an epoch from the demo's expert at a
learning rate of 0, where it does not move, then those of the last epoch of training
the expert from the base again, with dropout and without. "sum" is the ratio of the sums
over all parameters, "error" is |F - exact| / |exact|, "error, scaled" the same after
the best common factor. The cost is CPU time per step compared with training without a
Fisher; contestants take turns. Prints Markdown tables.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import merganser
import torch
from safetensors.torch import load_file

SETTINGS = {
    "num_labels": 2,
    "max_length": 64,
    "batch_size": 32,
    "weight_decay": 0.0,
    "dtype": "bfloat16",
    "lr": 3e-5,
    "seed": 1,
}
DROPOUT = 0.1  # the encoder's own
STILL = [  # estimator, interval, dropout
    ("adam", 4, DROPOUT),
    ("adam", 4, 0.0),
    ("online_mc_eval", 4, DROPOUT),
    ("online_mc", 4, DROPOUT),
    ("online_mc_eval", 1, DROPOUT),
    ("online_mc", 1, DROPOUT),
]
TRAINED = [
    ("adam", 4, DROPOUT),
    ("online_mc_eval", 4, DROPOUT),
    ("online_mc", 4, DROPOUT),
    ("adam", 4, 0.0),
    ("online_mc", 4, 0.0),
]
COSTS = [  # estimator, interval, dropout; number of Fishers in the proximal term
    (("none", 4, DROPOUT), 0),
    (("adam", 4, DROPOUT), 0),
    (("online_mc_eval", 4, DROPOUT), 0),
    (("online_mc", 4, DROPOUT), 0),
    (("none", 4, DROPOUT), 1),
    (("none", 4, DROPOUT), 2),
    (("none", 4, 0.0), 0),
    (("online_mc", 4, 0.0), 0),
]
WARM_UP, STEPS = 4, 24  # a multiple of the interval lies between them


class Run:
    """Trainings and Fishers on the same texts, in a directory of their own."""

    def __init__(self, out, data, folder):
        self.base, self.expert = out / "models" / "base", out / "models" / "tweets"
        self.fishers = out / "fishers"
        self.data, self.folder = data, folder
        self.count = 0

    def train(self, model, case, progress=None, **options):
        """Returns the output directory."""
        fisher, interval, dropout = case
        self.count += 1
        out = self.folder / f"model-{self.count}"
        settings = SETTINGS | {"dropout": dropout, "fisher": fisher} | options
        trainer = merganser.Trainer(
            model, self.data, out, fisher_interval=interval, **settings
        )
        trainer.train(progress)
        return out

    def fisher(self, model, estimator):
        """Returns the Fisher of all texts, flat."""
        texts = merganser._C.Dataset.load(
            self.data, model, max_length=SETTINGS["max_length"], num_labels=2
        )
        encoder = merganser._C.Encoder.load(model)
        options = {"batch_size": 32, "bfloat16": True}
        result = merganser._C.estimate_fisher(
            encoder, texts, 0, estimator=estimator, **options
        )
        return flat(dict(result.diagonal))

    def seconds_per_step(self, case, proximal):
        times = []

        def progress(*_):
            times.append(time.process_time())

        files = [self.fishers / f"{name}.safetensors" for name in ("base", "tweets")]
        options = {"max_steps": STEPS, "proximal": files[:proximal]}
        self.train(self.base, case, progress, **options)
        return (times[STEPS - 1] - times[WARM_UP - 1]) / (STEPS - WARM_UP)


def flat(fisher):
    return torch.cat([fisher[name].flatten().double() for name in sorted(fisher)])


def compare(fisher, exact):
    cosine = (fisher @ exact / fisher.norm() / exact.norm()).item()
    return (
        f"{fisher.sum() / exact.sum():.2f} | {cosine:.3f} | "
        f"{(fisher - exact).norm() / exact.norm():.2f} | {(1 - cosine**2) ** 0.5:.2f} |"
    )


def print_errors(run):
    print("| learning rate | Fisher | dropout | sum | cosine | error | error, scaled |")
    print("|---|---|--:|--:|--:|--:|--:|", flush=True)
    exact = run.fisher(run.expert, "exact")
    print_error("0", ("empirical", 0, ""), run.fisher(run.expert, "empirical"), exact)
    for case in STILL:
        out = run.train(run.expert, case, epochs=1, lr=0.0)
        print_error("0", case, read(out), exact)
    references = {merganser._C.content_hash(run.expert): exact}
    for case in TRAINED:
        out = run.train(run.base, case, epochs=2)
        model = merganser._C.content_hash(out)
        if model not in references:
            references[model] = run.fisher(out, "exact")
        print_error("3e-5", case, read(out), references[model])


def read(out):
    return flat(load_file(out / "fisher.safetensors"))


def print_error(rate, case, fisher, exact):
    line = f"| {rate} | {describe(case)} | {case[2]} | {compare(fisher, exact)}"
    print(line, flush=True)


def describe(case):
    fisher, interval, _ = case
    if not fisher.startswith("online"):
        return f"`{fisher}`"
    return f"`{fisher}`, " + ("every step" if interval == 1 else "every fourth step")


def print_costs(run, rounds):
    times = {contestant: [] for contestant in COSTS}
    for _ in range(rounds):
        for contestant in COSTS:
            times[contestant].append(run.seconds_per_step(*contestant))
    print("| Fisher | dropout | Fishers of the proximal term | ms per step | added |")
    print("|---|--:|--:|--:|--:|")
    for case, proximal in COSTS:
        seconds, plain = times[case, proximal], times[("none", 4, case[2]), 0]
        ratios = [a / b for a, b in zip(seconds, plain, strict=True)]
        added = f"{100 * statistics.median(ratios) - 100:.1f} %"
        print(
            f"| {describe(case)} | {case[2]} | {proximal} "
            f"| {1e3 * statistics.median(seconds):.0f} | {added} |"
        )


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--out", type=Path, default=Path("out/snippets"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=("errors", "costs"))
    arguments = parser.parse_args()
    texts = arguments.data / "snippets" / "tweets" / "train.jsonl"
    with tempfile.TemporaryDirectory() as folder:
        run = Run(arguments.out, texts, Path(folder))
        if arguments.only != "costs":
            print_errors(run)
        if arguments.only != "errors":
            print_costs(run, arguments.rounds)


if __name__ == "__main__":
    main()
