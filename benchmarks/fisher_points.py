"""Merges with Fishers that are calibrated, taken at the plain average or along the path
to it, or raised to a power: which of these helps.

    PYTHONPATH=build/cpu/python python benchmarks/fisher_points.py out/snippets \\
        data/snippets --keep out/fisher_points

RUN is the output of a finished `merganser run` with the merge `linear`. A set's
train.jsonl and test.jsonl come from the first DATA with DATA/SET/FILE. Every choice
uses training texts; test sets are only measured. KEEP keeps every Fisher and outcome;
existing results are not computed again. Prints Markdown.
"""

import argparse
import json
import random
import shutil
import statistics
from pathlib import Path

import executable
import merganser

METHODS = ("fisher", "gradient_matching", "measured_gradient_matching")
LIMIT = 600  # texts for each Fisher and scale, as in the runs
# By name: the Fishers, and parameters of the merge.
ROWS = {
    "default": ("plain", {}),
    "calibrated": ("calibrated", {"fisher_scale": "auto", "base_fisher_scale": "auto"}),
    "at the average": ("at", {}),
    "at the average, calibrated": (
        "at_calibrated",
        {"fisher_scale": "auto", "base_fisher_scale": "auto"},
    ),
    "along 2 points": ("along", {}),
    "power 0.5": ("plain", {"fisher_power": 0.5}),
}


class Run:
    def __init__(self, options):
        self.folder = options.run.resolve()
        self.folders = options.data
        self.limit = options.limit
        self.keep = options.keep.resolve()
        self.shared = ["--max-length", options.max_length, "--dtype", options.dtype]
        results = json.loads((self.folder / "results.json").read_text())
        self.sets = results["sets"]
        self.experts = [m["name"] for m in results["models"] if m["kind"] == "expert"]
        (base,) = (name for name in self.sets if name not in self.experts)
        self.data_of = {name: name for name in self.experts} | {"base": base}
        self.average = self.folder / "merges" / "linear" / "model"

    def data(self, name, file):
        files = (folder / name / file for folder in self.folders)
        return next(file for file in files if file.exists())

    def test(self, name):
        """The set's test file, or a random part of it."""
        whole = self.data(name, "test.jsonl")
        part = self.keep / f"{name}.jsonl"
        if self.limit is None:
            return whole
        if not part.exists():
            with whole.open(encoding="utf-8") as opened:
                lines = list(opened)
            chosen = random.Random(0).sample(lines, min(self.limit, len(lines)))
            part.write_text("".join(chosen), encoding="utf-8")
        return part

    def model(self, name):
        return self.folder / "models" / name

    def fisher(self, kind, name):
        """The file of a model's Fisher, estimated unless it exists."""
        plain = self.folder / "fishers" / f"{name}.safetensors"
        file = self.keep / kind / f"{name}.safetensors"
        if kind == "plain" or file.exists():
            return plain if kind == "plain" else file
        inputs = ["--model", self.model(name), "--limit", LIMIT, *self.shared, "-q"]
        inputs += ["--data", self.data(self.data_of[name], "train.jsonl")]
        if kind in ("calibrated", "at_calibrated"):
            own = self.fisher("at" if kind == "at_calibrated" else "plain", name)
            merge = ["--fisher", own, "--merge", self.average]
            executable.run("calibrate", "--out", file, *merge, *inputs)
            return file
        points = ["--along", 2] if kind == "along" else []
        executable.run("fisher", "--out", file, "--at", self.average, *points, *inputs)
        # The gradient at the expert, which the run has measured.
        result = merganser.FisherResult.load(file)
        result.task_vector = merganser.FisherResult.load(plain).task_vector
        result.save(file)
        return file

    def recipe(self, method, kind, parameters):
        content = {
            "merge_method": method,
            "base_model": str(self.model("base")),
            "base_fisher": str(self.fisher(kind, "base")),
            "models": [
                {"model": str(self.model(e)), "fisher": str(self.fisher(kind, e))}
                for e in self.experts
            ],
            "parameters": parameters,
        }
        file = self.keep / f"{method}-{kind}.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(content))
        return file

    def evaluate(self, model):
        tests = [self.test(name) for name in self.sets]
        found = executable.run(
            *("eval", "--model", model, "--data", *tests, *self.shared),
            *("--json", "-q"),
        )
        return [(one["accuracy"], one["loss"]) for one in json.loads(found)]

    def measure(self, method, name):
        """(accuracy, loss) of every set."""
        kind, parameters = ROWS[name]
        label = kind + "".join(f"-{key}-{x}" for key, x in parameters.items())
        file = self.keep / f"{method}-{label}.json"
        if not file.exists():
            merged = self.keep / f"{method}-{label}"
            shutil.rmtree(merged, ignore_errors=True)
            executable.run("merge", self.recipe(method, kind, parameters), merged, "-q")
            file.write_text(json.dumps(self.evaluate(merged)))
            shutil.rmtree(merged)
        return json.loads(file.read_text())

    def scale(self, kind, name):
        metadata = merganser.FisherResult.load(self.fisher(kind, name)).scale
        return f"{metadata.scale.value:,.0f} ± {metadata.scale.standard_error:,.0f}"


def parse_arguments(description, keep):
    """The options of Run; `keep`: default of --keep."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, metavar="RUN")
    parser.add_argument("data", type=Path, metavar="DATA", nargs="+")
    parser.add_argument("--keep", type=Path, default=Path(keep))
    parser.add_argument("--limit", type=int, help="random test texts of each set")
    parser.add_argument("--max-length", type=int, default=64)
    parser.add_argument("--dtype", default="bfloat16")
    return parser.parse_args()


def main():
    run = Run(parse_arguments(__doc__, "out/fisher_points"))
    models = ["base", *run.experts]
    print(f"| scale of Fishers | {' | '.join(models)} |")
    print(f"|---|{'--:|' * len(models)}")
    for kind, where in (
        ("calibrated", "default"),
        ("at_calibrated", "at the average"),
    ):
        scales = [run.scale(kind, name) for name in models]
        print(f"| {where} | {' | '.join(scales)} |")
    print(f"\n| method | Fishers | {' | '.join(run.sets)} | accuracy, % | loss |")
    print(f"|---|---|{'--:|' * (len(run.sets) + 2)}")
    for method in METHODS:
        for name in ROWS:
            found = run.measure(method, name)
            accuracies = [100 * accuracy for accuracy, _ in found]
            cells = " | ".join(f"{x:.1f}" for x in accuracies)
            loss = statistics.mean(loss for _, loss in found)
            mean = statistics.mean(accuracies)
            row = f"| `{method}` | {name} | {cells} | {mean:.2f} | {loss:.4f} |"
            print(row, flush=True)


if __name__ == "__main__":
    main()
