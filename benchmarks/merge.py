"""Merges of 4 experts (with base and 5 Fishers) compared with others, in one run:

    scripts/bench_merge                               everything
    scripts/bench_merge --models minilm --rounds 1    some minutes

Measures `merganser merge` against mergekit and sd-mecha on models of random weights
and against the machine's floor: the same files read and as many bytes written by as
many threads, with nothing computed. Every contestant is a process of its own, timed
from its start to its end; they take turns, and ratios are medians of those within a
round. Prints Markdown; --json writes all that was measured, cell by cell.

The inputs are in the page cache, or with --cold are not. What a merge wrote is
removed and the disk left to rest before the next one begins. One run of each that
does not count comes first; its result is compared with Merganser's: the largest
|a - b| / max |b| of a tensor.
"""

import argparse
import json
import shutil
import tempfile
from pathlib import Path

import merge_models
import merge_tables
from fisher import describe_machine
from merge_contestants import METHODS, THREADS, Cell, evict, read_once, remove, run
from peers.workers import ROOT, Failed, available_memory, log

# Values of a model, and the dtypes that it is measured in.
MODELS = {
    "minilm": (23e6, ("float32", "bfloat16")),
    "roberta": (125e6, ("float32", "bfloat16")),
    "llama-1b": (1100e6, ("bfloat16",)),
}
BUDGETS = ("64MiB", "256MiB")  # of --memory


def main():
    arguments = parse_arguments()
    machine = describe_machine(("mergekit", "sd_mecha"))
    result = {"machine": machine, "merges": [], "memory": [], "plan": []}
    print("# Merges\n")
    for key, value in machine.items():
        print(f"- {key}: {value}")

    def collect(key, measurements):
        """Keeps all of them and writes each as soon as it is measured."""
        for measurement in measurements:
            result[key].append(measurement)
            if arguments.json:
                arguments.json.write_text(json.dumps(result, indent=1) + "\n")

    for model in arguments.models:
        for dtype in MODELS[model][1]:
            with tempfile.TemporaryDirectory() as folder:
                methods = make_inputs(model, dtype, Path(folder))
                cells = [Cell(model, dtype, name, Path(folder)) for name in methods]
                collect("merges", (measure(cell, arguments) for cell in cells))
                merge_tables.print_merges(result["merges"][-len(cells) :])
                collect("memory", measure_memory(cells[-1], arguments.merganser))
    merge_tables.print_memory(result["memory"])
    collect("plan", measure_plan("llama-70b", arguments.merganser))
    merge_tables.print_plan(result["plan"])


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="*", choices=MODELS, default=list(MODELS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cold", action="store_true", help="inputs from the disk")
    parser.add_argument(
        "--merganser", type=Path, default=ROOT / "build/cpu/bin/merganser"
    )
    parser.add_argument("--json", type=Path, help="where to write the measurements")
    return parser.parse_args()


def make_inputs(model, dtype, folder):
    """Makes the inputs that fit on the disk; returns the methods they suffice for."""
    values = MODELS[model][0]
    models = 7 * values * (2 if dtype == "bfloat16" else 4)  # 5 and 2 results
    fishers = 5 * values * 4
    free = shutil.disk_usage(folder).free
    if free < models:
        log(f"{model}, {dtype}: left out, {models / 1e9:.0f} GB of disk are needed")
        return []
    log(f"{model}, {dtype}: making models")
    merge_models.make_models(model, dtype, folder)
    if free < models + fishers:
        log(f"{model}, {dtype}: no Fishers, {fishers / 1e9:.0f} GB more are needed")
        return METHODS[:-1]
    merge_models.make_fishers(model, folder)
    return METHODS


def measure(cell, arguments):
    log(f"{cell.model}, {cell.dtype}, {cell.method}")
    contestants = cell.contestants(arguments.merganser)
    inputs = cell.inputs()
    # Everyone reads from the disk if the inputs do not fit into memory.
    size = sum(path.stat().st_size for path in inputs)
    from_disk = arguments.cold or size > 0.9 * available_memory()
    first, out = cell.folder / "first", cell.folder / "out"
    seconds, peaks = {name: [] for name in contestants}, {}
    differences, errors = {}, {}

    def attempt(work, name):
        try:
            work(name)
        except Failed as error:
            log(f"{name}: {error}")
            errors[name] = str(error)

    def compare(name):
        path = first if name == "merganser" else out
        run(contestants[name](path))
        if name not in ("merganser", "floor"):
            differences[name] = merge_models.difference(path, first)

    def take_turn(name):
        if from_disk:
            evict(inputs)
        time, peak = run(contestants[name](out))
        seconds[name].append(time)
        peaks[name] = max(peak, peaks.get(name, 0))

    if not from_disk:
        read_once(inputs)
    for name in contestants:
        attempt(compare, name)
        remove(out)
    remove(first)
    for i in range(arguments.rounds):
        # Every other round runs in reverse order, so that no contestant always
        # comes after the same one.
        order = [name for name in contestants if name not in errors]
        for name in order if i % 2 == 0 else reversed(order):
            attempt(take_turn, name)
            remove(out)
    return {
        "model": cell.model,
        "dtype": cell.dtype,
        "method": cell.method,
        "input_bytes": size,
        "from_disk": from_disk,
        "seconds": seconds,
        "peak_bytes": peaks,
        "differences": differences,
        "errors": errors,
    }


def measure_memory(cell, merganser):
    """Memory of a merge with several budgets, beyond that of an idle process."""
    _, idle = run([merganser, "--version"])
    file, out = cell.write_recipe(), cell.folder / "out"
    for budget in BUDGETS:
        command = [merganser, "merge", file, out, "--threads", THREADS]
        _, peak = run([*command, "--memory", budget])
        remove(out)
        yield {
            "model": cell.model,
            "dtype": cell.dtype,
            "method": cell.method,
            "budget": budget,
            "peak_bytes": peak,
            "version_peak_bytes": idle,
        }


def measure_plan(model, merganser):
    """Time of plan for models whose files hold headers and a hole."""
    log(f"plan: {model}")
    with tempfile.TemporaryDirectory() as folder:
        cell = Cell(model, "bfloat16", "task_arithmetic", Path(folder))
        merge_models.make_sparse(model, cell.dtype, cell.folder)
        command = [merganser, "plan", cell.write_recipe(), "--json"]
        seconds = []
        for _ in range(5):
            with tempfile.TemporaryFile("w+") as text:
                seconds.append(run(command, text)[0])
                text.seek(0)
                plan = json.load(text)
        yield {
            "model": model,
            "seconds": seconds,
            "tensors": len(plan["tensors"]),
            "bytes_read": plan["bytes_read"],
            "peak_memory": plan["peak_memory"],
        }


if __name__ == "__main__":
    main()
