"""Fishers in float32, bfloat16 and factored: what a merge loses, and its time.

    python benchmarks/fisher_storage.py accuracy out/snippets data/snippets
    python benchmarks/fisher_storage.py time --model llama-0.3b

`accuracy` merges the experts of a finished `merganser run` with its Fishers in each
form and evaluates on the test sets; "change" is the distance from the merge with
float32 relative to that merge's from the base. `time` merges four experts of random
weights in bfloat16: task_arithmetic, which reads no Fishers, and gradient_matching with
five, in turns, inputs in the page cache. Ratios are medians of those within a round.
Print Markdown.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import merganser
import torch
from merge_contestants import THREADS, Cell, read_once, remove
from merge_models import NAMES, describe, make_models
from safetensors.torch import load_file

STORAGES = ("float32", "bfloat16", "factored")
METHODS = ("fisher", "fisher_base", "gradient_matching")
EXECUTABLE = Path(merganser.__file__).parents[2] / "bin" / "merganser"


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    accuracy = commands.add_parser("accuracy")
    accuracy.add_argument("run", type=Path, help="output of merganser run")
    accuracy.add_argument("data", type=Path, help="SET/test.jsonl per set")
    accuracy.add_argument("--max-length", type=int, default=64)
    accuracy.add_argument("--dtype", default="bfloat16")
    timing = commands.add_parser("time")
    timing.add_argument("--model", default="llama-0.3b")
    timing.add_argument("--rounds", type=int, default=5)
    timing.add_argument("--storages", nargs="*", choices=STORAGES, default=STORAGES)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if arguments.command == "accuracy":
            compare_accuracy(arguments, Path(folder))
        else:
            compare_times(arguments, Path(folder))


def execute(*words):
    command = [str(word) for word in (EXECUTABLE, *words)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout


def compare_accuracy(arguments, folder):
    run = arguments.run.resolve()
    sets = json.loads((run / "results.json").read_text())["sets"]
    tests = [arguments.data / name / "test.jsonl" for name in sets]
    columns = [*sets, "accuracy, %", "loss", "change, %"]
    print(f"| method | Fishers | MB each | {' | '.join(columns)} |")
    print(f"|---|---|--:|{'--:|' * len(columns)}")
    base = load_file(run / "models/base/model.safetensors")
    expected = {}  # by method, in float32
    for storage in STORAGES:
        fishers = folder / storage
        fishers.mkdir()
        for file in sorted((run / "fishers").glob("*.safetensors")):
            fisher = merganser.FisherResult.load(file)
            fisher.save(fishers / file.name, storage=storage)
        size = statistics.mean(f.stat().st_size for f in fishers.iterdir()) / 1e6
        for method in METHODS:
            text = (run / f"merges/{method}/recipe.yaml").read_text()
            text = text.replace("../../fishers", str(fishers))
            recipe = folder / "recipe.yaml"
            recipe.write_text(text.replace("../..", str(run)))
            merganser.merge_recipe(recipe, folder / "merged")
            options = ("--max-length", arguments.max_length, "--dtype", arguments.dtype)
            found = json.loads(
                execute(
                    *("eval", "--model", folder / "merged", "--data", *tests),
                    *(*options, "--json", "--quiet"),
                )
            )
            merged = load_file(folder / "merged/model.safetensors")
            whole = expected.setdefault(method, merged)
            change = 100 * distance(merged, whole) / distance(whole, base)
            accuracies = [100 * one["accuracy"] for one in found]
            loss = statistics.mean(one["loss"] for one in found)
            cells = " | ".join(f"{a:.2f}" for a in accuracies)
            mean = statistics.mean(accuracies)
            row = f"| `{method}` | {storage} | {size:.1f} | {cells}"
            print(f"{row} | {mean:.2f} | {loss:.4f} | {change:.2f} |", flush=True)
            shutil.rmtree(folder / "merged")


def distance(a, b):
    squares = ((a[name].double() - b[name].double()).square().sum() for name in a)
    return float(sum(squares)) ** 0.5


def compare_times(arguments, folder):
    make_models(arguments.model, "bfloat16", folder)
    print(f"{arguments.model}, {THREADS} threads, {arguments.rounds} rounds\n")
    print("| Fishers | GB read | task_arithmetic, s | gradient_matching, s | ratio |")
    print("|---|--:|--:|--:|--:|")
    for storage in arguments.storages:
        make_fishers(arguments.model, storage, folder)
        cells = [
            Cell(arguments.model, "bfloat16", method, folder)
            for method in ("task_arithmetic", "gradient_matching")
        ]
        files = cells[1].inputs()
        read_once(files)
        rounds = [
            [seconds_of(cell, folder / "out") for cell in cells]
            for _ in range(arguments.rounds + 1)
        ][1:]  # the first does not count
        plain, matching = (
            statistics.median(column) for column in zip(*rounds, strict=True)
        )
        ratio = statistics.median(b / a for a, b in rounds)
        size = sum(path.stat().st_size for path in files) / 1e9
        row = f"| {storage} | {size:.2f} | {plain:.2f} | {matching:.2f} | {ratio:.2f}"
        print(f"{row} |", flush=True)


def make_fishers(model, storage, folder):
    """Over many orders of magnitude, as Fishers are; those of another storage go."""
    shards = describe(model, "float32")[1].values()
    for name in NAMES:
        diagonal = {
            tensor: torch.rand(shape).pow_(8).mul_(1e-5)
            for shard in shards
            for tensor, shape in shard.items()
        }
        merganser.FisherResult(
            diagonal, num_examples=100, num_examples_used=100, estimator="exact"
        ).save(folder / f"{name}_fisher.safetensors", storage=storage)


def seconds_of(cell, out):
    command = ("merge", cell.write_recipe(), out, "--threads", THREADS, "--quiet")
    begin = time.perf_counter()
    execute(*command)
    seconds = time.perf_counter() - begin
    remove(out)
    return seconds


if __name__ == "__main__":
    main()
