"""Ablation of subspace_gradient_matching: points of the path, groups, numbers of
examples, and shrinkage.

    PYTHONPATH=build/cpu/python python benchmarks/subspace.py

Needs what scripts/demo leaves behind. Runs `merganser subspace`, `merganser merge` and
`merganser eval`, keeps every outcome under out/subspace and runs what is missing. The
weights come from training texts; test sets are only measured. Prints a Markdown table.
"""

import argparse
import json
import re
import shutil
from pathlib import Path

import executable

TYPE = ("--max-length", "64", "--dtype", "bfloat16")  # as in examples/snippets.yaml
DEFAULT = {"groups": "block", "points": 2, "limit": 600, "shrink": "auto"}
ROWS = [
    DEFAULT,
    DEFAULT | {"points": 1},
    DEFAULT | {"groups": "global"},
    DEFAULT | {"limit": 200},
    DEFAULT | {"shrink": 0},
    DEFAULT | {"shrink": 1},
]


def estimate(options, row, file):
    arguments = ["--base", options.out / "models" / "base", "--out", file, "-q"]
    arguments += ["--base-data", options.data / "movie" / "train.jsonl"]
    for name in experts(options):
        arguments += ["--expert", options.out / "models" / name]
        arguments += ["--data", options.data / name / "train.jsonl"]
    for key in ("groups", "points", "limit"):
        arguments += [f"--{key}", row[key]]
    executable.run("subspace", *arguments, *TYPE)


def experts(options):
    results = json.loads((options.out / "results.json").read_text())
    return [m["name"] for m in results["models"] if m["kind"] == "expert"]


def measure(options, row, folder):
    """The table's columns; `folder` keeps the file of the subspace."""
    name = f"{row['groups']}-{row['points']}-{row['limit']}"
    file = folder / f"{name}.safetensors"
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        estimate(options, row, file)
    recipe = folder / "recipe.yaml"
    models = "".join(
        f"  - model: {(options.out / 'models' / name).resolve()}\n"
        for name in experts(options)
    )
    recipe.write_text(
        "merge_method: subspace_gradient_matching\n"
        f"base_model: {(options.out / 'models' / 'base').resolve()}\n"
        f"subspace: {file.resolve()}\nmodels:\n{models}"
        f"parameters: {{shrink: {row['shrink']}}}\n"
    )
    notes = json.loads(executable.run("plan", recipe, "--json"))["notes"]
    (note,) = (note for note in notes if note.startswith("shrink"))
    shrink, largest = re.search(r"shrink (\S+);.*weight (\S+),", note).groups()
    merged = folder / "model"
    shutil.rmtree(merged, ignore_errors=True)
    executable.run("merge", recipe, merged, "-q")
    tests = [options.data / name / "test.jsonl" for name in sets(options)]
    data = [part for test in tests for part in ("--data", test)]
    found = json.loads(
        executable.run("eval", "--model", merged, *data, *TYPE, "--json", "-q")
    )
    return {
        "shrink": float(shrink),
        "largest": float(largest),
        "accuracy": sum(r["accuracy"] for r in found) / len(found),
        "loss": sum(r["loss"] for r in found) / len(found),
    }


def sets(options):
    return json.loads((options.out / "results.json").read_text())["sets"]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("out/snippets"))
    parser.add_argument("--data", type=Path, default=Path("data/snippets"))
    parser.add_argument("--keep", type=Path, default=Path("out/subspace"))
    options = parser.parse_args()
    print("| groups | points | examples | shrink | largest weight | accuracy | loss |")
    print("|---|--:|--:|--:|--:|--:|--:|")
    for row in ROWS:
        file = options.keep / ("-".join(map(str, row.values())) + ".json")
        if not file.exists():
            found = measure(options, row, options.keep)
            file.write_text(json.dumps(found, indent=1) + "\n")
        found = json.loads(file.read_text())
        how = ", auto" if row["shrink"] == "auto" else ""
        print(
            f"| {row['groups']} | {row['points']} | {row['limit']} | "
            f"{found['shrink']:g}{how} | {found['largest']:.1f} | "
            f"{100 * found['accuracy']:.1f} % | {found['loss']:.3f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
