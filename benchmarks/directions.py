"""Directions of subspace_gradient_matching: other merges in its span.

    PYTHONPATH=build/cpu/python python benchmarks/directions.py \
        out/snippets_seeds/seeds/0 --experiment examples/snippets_seeds.yaml

RUN is the output of a finished seed of `merganser run`, with validation parts.
Estimates one subspace with all directions, merges with some of them and evaluates on
the validation parts, which no training saw. Prints a Markdown table.
"""

import argparse
import json
import shutil
from pathlib import Path

import executable
import yaml

DIRECTIONS = ["regmean_task_vectors", "tsv_m", "regmean", "block_gradient_matching"]
ROWS = [
    [],
    *([name] for name in DIRECTIONS),
    ["regmean_task_vectors", "tsv_m"],
    ["regmean_task_vectors", "regmean"],
    ["regmean_task_vectors", "tsv_m", "regmean"],
    DIRECTIONS,
]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--experiment", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("out/directions"))
    options = parser.parse_args()
    run, work = options.run.resolve(), options.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    settings = yaml.safe_load(options.experiment.read_text())
    results = json.loads((run / "results.json").read_text())
    experts = [m["name"] for m in results["models"] if m["kind"] == "expert"]
    types = ["--max-length", settings["max_length"], "--dtype", settings["dtype"]]

    def model(name):
        trained = run / "models" / name
        return trained if trained.exists() else run / "merges" / name / "model"

    subspace = work / "subspace.safetensors"
    if not subspace.exists():
        data = run / "data"
        arguments = ["--base", model("base"), "--base-data"]
        arguments += [data / settings["base"]["data"] / "train.jsonl"]
        for name in experts:
            arguments += [
                "--expert",
                model(name),
                "--data",
                data / name / "train.jsonl",
            ]
        for name in DIRECTIONS:
            arguments += ["--direction", model(name)]
        arguments += ["--limit", settings["fisher"]["limit"], "--out", subspace]
        executable.run("subspace", *arguments, *types)

    def evaluate(folder):
        parts = [run / "data" / name / "validation.jsonl" for name in results["sets"]]
        data = [option for part in parts for option in ("--data", part)]
        sets = json.loads(
            executable.run("eval", "--model", folder, *data, *types, "--json", "-q")
        )
        accuracy = sum(row["accuracy"] for row in sets) / len(sets)
        loss = sum(row["loss"] for row in sets) / len(sets)
        return f"{100 * accuracy:.1f} | {loss:.3f} |"

    print("| directions | accuracy, % | loss |\n|---|--:|--:|")
    for row in ROWS:
        recipe = {
            "merge_method": "subspace_gradient_matching",
            "base_model": str(model("base")),
            "subspace": str(subspace),
            "models": [{"model": str(model(name))} for name in [*experts, *row]],
        }
        (work / "recipe.yaml").write_text(yaml.safe_dump(recipe))
        merged = work / "model"
        shutil.rmtree(merged, ignore_errors=True)
        executable.run("merge", work / "recipe.yaml", merged, "-q")
        names = ", ".join(f"`{name}`" for name in row) or "none"
        print(f"| {names} | {evaluate(merged)}", flush=True)
    print(f"| joint training | {evaluate(model('target'))}", flush=True)


if __name__ == "__main__":
    main()
