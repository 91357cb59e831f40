r"""Merges of experts on unlike tasks: topics of news, toxicity and sentiment, each with
a head of its own, merged in the encoder and tested with the heads.

    PYTHONPATH=build/cpu/python python benchmarks/unlike_tasks.py DATA \
        --encoder data/all-MiniLM-L6-v2 --work out/unlike_tasks --seeds 0 1 2

DATA has {agnews,toxic,yelp}/{train,test}.jsonl, a line per text with "text" and
"label": 0 to 3 for the topics of AG News, 0 or 1 for the others. `scripts/fetch_data`
writes the encoder, and with --imdb-plus Yelp's files, under imdb_plus/yelp.

The base is the encoder as it was pretrained. An expert is trained from it for each
task, on --train random texts. All models then have the heads of all experts as
constants, so that one module runs every task, task vectors are zero on heads, and every
method of merganser.merge applies. The base has no task of its own: its Fisher,
H0 = N0 F0, is the sum over the tasks of the Fishers of the encoder with the expert's
head on the expert's training texts. Fishers, Gram matrices and the subspace are of
--limit training texts of each task. Every method runs at its defaults, where a row's
name gives no other value; adamerging adapts to the test texts, without labels, as its
authors do, and its second row to training texts, by --steps steps.

Writes --work/results.json and prints a Markdown table: means over the seeds, for the
average accuracy with its standard error. Every row is kept when it is complete: the
same command continues after an interruption.
"""

import argparse
import copy
import functools
import json
import math
import time
from pathlib import Path

import merganser
import torch
from kept_rows import KeptRows, write
from torch.nn import functional
from unlike_models import DTYPE, TASKS, Experts

# name of a row: method, arguments of merganser.merge, statistics that it needs
MERGES = {
    "`linear`": ("linear", {}, ()),
    "`task_arithmetic`": ("task_arithmetic", {}, ()),
    "`task_arithmetic`, weight 0.3": ("task_arithmetic", {"weights": 0.3}, ()),
    "`fisher`": ("fisher", {}, ("fishers",)),
    "`gradient_matching`": ("gradient_matching", {}, ("fishers", "base_fisher")),
    "`measured_gradient_matching`": (
        "measured_gradient_matching",
        {},
        ("fishers", "base_fisher"),
    ),
    "`subspace_gradient_matching`": ("subspace_gradient_matching", {}, ("subspace",)),
    "`regmean`": ("regmean", {}, ("grams",)),
    "`regmean`, `gram: task_vectors`": ("regmean", {"grams": "task_vectors"}, ()),
    "`ties`": ("ties", {}, ()),
    "`ties`, density 0.2": ("ties", {"parameters": {"density": 0.2}}, ()),
    "`della`, density 0.5": ("della", {"parameters": {"density": 0.5}}, ()),
    "`tsv_m`": ("tsv_m", {}, ()),
    "`iso_c`": ("iso_c", {}, ()),
    "`model_stock`": ("model_stock", {}, ()),
}


class Run(Experts):
    """Merges of the experts of one seed, and their outcomes."""

    def merge(self, method, arguments, needs):
        base, *experts = self.models
        statistics = {name: getattr(self, name) for name in needs}
        return merganser.merge(base, experts, method=method, **arguments, **statistics)

    def regmean_plus_plus(self):
        return merganser.regmean_plus_plus(
            self.models[1:], self.sample, num_examples=self.numbers, dtype=DTYPE
        )

    def adamerging(self, part):
        base, *experts = self.models
        data = [self.batches(task, part, size=16) for task in TASKS]
        return merganser.adamerging(
            base, experts, data, steps=self.options.steps, dtype=DTYPE
        ).state_dict

    def measure(self, states):
        """Accuracy and loss of each task, with the model of its own."""
        model = copy.deepcopy(self.models[0])
        found = {}
        for task, state in zip(TASKS, states, strict=True):
            model.load_state_dict(state)
            right = loss = count = 0
            for batch in self.batches(task, "test", by_length=True):
                labels = batch["labels"]
                inputs = {key: x for key, x in batch.items() if key != "labels"}
                with torch.no_grad(), torch.autocast("cpu", DTYPE):
                    logits = model(**inputs).float()
                right += int((logits.argmax(1) == labels).sum())
                loss += float(functional.cross_entropy(logits, labels, reduction="sum"))
                count += len(labels)
            found[task] = {"accuracy": right / count, "loss": loss / count}
        return found

    def rows(self):
        """Each row's name, and a function that returns its model for each task."""

        def same(build):
            return lambda: [build()] * len(TASKS)

        yield "experts", lambda: [model.state_dict() for model in self.models[1:]]
        yield "base", same(lambda: self.models[0].state_dict())
        for name, merge in MERGES.items():
            yield name, same(functools.partial(self.merge, *merge))
        yield "`regmean_plus_plus`", same(self.regmean_plus_plus)
        for part in ("test", "train"):
            build = functools.partial(self.adamerging, part)
            yield f"`adamerging` to {part} texts", same(build)

    def results(self):
        """Outcomes by row; those of an earlier run are kept."""
        kept = KeptRows(self.work / "rows.json", self.options, ("seeds", "work"))
        for name, build in self.rows():
            if name in kept.rows:
                continue
            begin = time.monotonic()
            outcome = {"tasks": self.measure(build())}
            outcome["seconds"] = round(time.monotonic() - begin, 1)
            kept.keep(name, outcome)
            print(f"seed {self.seed}: {name}, {outcome['seconds']} s", flush=True)
        return kept.rows


def mean(values):
    return sum(values) / len(values)


def summary(runs, name):
    """Means over the seeds of a row."""
    outcomes = [run[name]["tasks"] for run in runs]
    accuracies = [mean([x["accuracy"] for x in each.values()]) for each in outcomes]
    found = {
        task: mean([each[task]["accuracy"] for each in outcomes]) for task in TASKS
    }
    found["accuracy"] = mean(accuracies)
    spread = [(x - found["accuracy"]) ** 2 for x in accuracies]
    if len(runs) > 1:
        found["standard_error"] = math.sqrt(mean(spread) / (len(runs) - 1))
    found["loss"] = mean([mean([x["loss"] for x in e.values()]) for e in outcomes])
    found["seconds"] = mean([run[name]["seconds"] for run in runs])
    return found


def print_table(rows):
    print(f"| merge | {' | '.join(TASKS)} | accuracy, % | loss |")
    print("|---|" + "--:|" * (len(TASKS) + 2))
    for name, row in rows.items():
        columns = [f"{100 * row[task]:.1f}" for task in TASKS]
        error = row.get("standard_error")
        average = f"{100 * row['accuracy']:.1f}"
        columns.append(average if error is None else f"{average} ± {100 * error:.1f}")
        print(f"| {name} | {' | '.join(columns)} | {row['loss']:.3f} |")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--encoder", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("out/unlike_tasks"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--train", type=int, default=2000)
    parser.add_argument("--test", type=int, default=1000)
    parser.add_argument("--limit", type=int, default=600)
    parser.add_argument("--max-length", type=int, default=64)
    parser.add_argument("--steps", type=int, default=500)
    options = parser.parse_args()
    runs = [Run(options, seed).results() for seed in options.seeds]
    rows = {name: summary(runs, name) for name in runs[0]}
    write(options.work / "results.json", json.dumps(rows, indent=1) + "\n")
    print_table(rows)


if __name__ == "__main__":
    main()
