"""Fishers of transformers' classifiers compared with other ways to them, in one run:

    scripts/bench                  everything, about half an hour on two idle cores
    scripts/bench --quick          one small cell, below two minutes

Measures merganser.fisher against one plain forward and backward pass of the same
batches in the same dtype, the loop over single examples, nngeometry and Opacus, on
the configurations of all-MiniLM-L6-v2 and roberta-base with two classes and random
weights. Every contestant is a process of its own, in its own environment with the
same torch; one works at a time, in turns, and ratios are medians of those within a
round. Prints Markdown; --json writes all measurements.
"""

import argparse
import json
import os
import tempfile
from importlib.metadata import version
from pathlib import Path

from peers import measure, tables
from peers.workers import ROOT, Failed, Worker, log

MODELS = ("minilm", "roberta-base")
LENGTHS = ("32", "64", "128", "384", "mixed")
DTYPES = ("float32", "bfloat16")
PEERS = ("loop", "nngeometry", "opacus")
LENGTH = 64  # for memory and agreement
BATCH_SIZES = (8, 32)  # for memory

ABOUT_SPEED = """
## Speed

exact, mc and empirical are Merganser's; in brackets their time over that of one
forward and backward pass, lower is better. Of the others, in brackets their time
over that of Merganser's empirical Fisher, which is what they compute: how many times
faster Merganser is. What a call does once, up to the end of its first batch, is not
counted, for nobody. All examples are of the same length, but for 16-128, which are
mixed and padded."""

ABOUT_MEMORY = """
## Memory

Peak beyond the model and one float32 copy of what is computed (the gradients, the
Fisher). In brackets over that of one forward and backward pass."""

ABOUT_AGREEMENT = """
## Agreement

|a - b| / |b| over all values that both have, of the same {count} examples."""

ABOUT_PEERS = """
nngeometry knows no embeddings, and its rules for linear layers and LayerNorm take
one vector per example: "extended" adds two rules that add up over tokens, and leaves
the embeddings out, work that the others do."""


def main():
    arguments = parse_arguments()
    names = ("plain", *measure.OURS, *arguments.peers)
    result = {"machine": describe_machine(arguments.peers)}
    print("# Fishers\n")
    for key, value in result["machine"].items():
        print(f"- {key}: {value}")
    if "nngeometry" in arguments.peers:
        print(ABOUT_PEERS)

    def collect(key, measurements):
        """Keeps all of them and writes each as soon as it is measured."""
        result[key] = []
        for measurement in measurements:
            result[key].append(measurement)
            if arguments.json:
                arguments.json.write_text(json.dumps(result, indent=1) + "\n")
        return result[key]

    print(ABOUT_SPEED)
    tables.speed_tables(
        collect("speed", measure_speeds(arguments, names)), arguments.peers
    )
    print(ABOUT_MEMORY, flush=True)
    tables.memory_tables(collect("memory", measure_memories(arguments, names)))
    print(ABOUT_AGREEMENT.format(count=measure.EXAMPLES), flush=True)
    tables.agreement_table(collect("agreement", measure_agreements(arguments)))


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, choices in [
        ("models", MODELS),
        ("lengths", LENGTHS),
        ("dtypes", DTYPES),
        ("peers", PEERS),
    ]:
        parser.add_argument(f"--{name}", nargs="*", choices=choices, default=choices)
    parser.add_argument(
        "--seconds",
        type=float,
        default=15,
        help="seconds of rounds in a cell, two rounds at minimum",
    )
    parser.add_argument(
        "--quick", action="store_true", help="minilm, length 64, float32"
    )
    parser.add_argument("--json", type=Path, help="where to write the measurements")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.models = MODELS[:1]
        arguments.lengths = ("64",)
        arguments.dtypes = DTYPES[:1]
        arguments.seconds = min(arguments.seconds, 5)
    return arguments


def describe_machine(peers):
    with open("/proc/cpuinfo") as lines:
        cpu = next(line for line in lines if line.startswith("model name"))
    packages = [
        next(ROOT.glob(f"build/peers/{peer}/lib/*/site-packages/{peer}-*.dist-info"))
        for peer in peers
        if peer != "loop"
    ]
    return {
        "CPU": cpu.split(":")[1].strip(),
        "cores": len(os.sched_getaffinity(0)),
        "torch": version("torch"),
        "transformers": version("transformers"),
        "peers": ", ".join(package.stem for package in packages) or "none",
    }


def measure_speeds(arguments, names):
    workers = [Worker(name) for name in names]
    for model in arguments.models:
        for dtype in arguments.dtypes:
            for length in arguments.lengths:
                if length == "mixed" and model != "minilm":
                    continue  # one model shows what padding costs
                log(f"speed: {model}, {dtype}, {length}")
                cell = measure.make_cell(model, length, dtype)
                yield measure.measure_speed(cell, workers, arguments.seconds)
    for worker in workers:
        worker.stop()


def measure_memories(arguments, names):
    # The others of Merganser's hold what "exact" holds, and the loop one example.
    names = [name for name in names if name not in ("mc", "empirical", "loop")]
    for model in arguments.models:
        for dtype in arguments.dtypes:
            for batch_size in BATCH_SIZES:
                log(f"memory: {model}, {dtype}, batches of {batch_size}")
                cell = measure.make_cell(model, LENGTH, dtype, batch_size)
                yield measure.measure_memory(cell, names)


def measure_agreements(arguments):
    """Compares everyone's float32 Fisher with Merganser's, and the bfloat16 ones of
    Merganser and of the loop with their own in float32."""
    peers = list(arguments.peers)
    if "nngeometry" in peers:
        peers.append("nngeometry-released")
    pairs = [((peer, "float32"), ("empirical", "float32")) for peer in peers]
    if "bfloat16" in arguments.dtypes:
        names = ["exact", "empirical"] + ["loop"] * ("loop" in peers)
        pairs += [((name, "bfloat16"), (name, "float32")) for name in names]
    workers = {name: Worker(name) for pair in pairs for name, _ in pair}
    for model in arguments.models:
        log(f"agreement: {model}")
        with tempfile.TemporaryDirectory() as folder:
            for pair in pairs:
                yield compare(model, *pair, workers, Path(folder))
    for worker in workers.values():
        worker.stop()


def compare(model, fisher, reference, workers, folder):
    """The Fishers, (contestant, dtype) each, are computed unless their files exist."""
    row = {"model": model, "fisher": fisher, "reference": reference}
    paths = []
    for name, dtype in (fisher, reference):
        paths.append(folder / f"{name}-{dtype}")
        if paths[-1].exists():
            continue
        cell = measure.make_cell(model, LENGTH, dtype)
        try:
            measure.compute_fisher(cell, workers[name], paths[-1])
        except Failed as error:
            return {**row, "error": str(error)}
    difference, values = measure.difference(*paths)
    return {**row, "difference": difference, "values": values}


if __name__ == "__main__":
    main()
