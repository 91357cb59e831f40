"""Benefit of refining a one-shot merge: the share of the gap to joint training
that it closes, by solver, number of examples and targets.

    PYTHONPATH=build/cpu/python python benchmarks/refine.py

Needs what scripts/demo leaves behind, or another finished seed of `merganser run`
(--run out/imdb_plus/seeds/0 --data data/imdb_plus --out ...), whose samples of the data
it takes. Starts from the merge with the lowest test loss, or from --start. The base's
own data are a task too, with the base as its expert, in place of the base's diagonal
Fisher. Runs `merganser refine` and `merganser eval`, keeps every outcome under
out/refine and runs what is missing. A step is chosen on held-out training examples;
test sets are only measured. Prints a Markdown table and draws out/refine/refine.png.
"""

import argparse
import functools
import hashlib
import itertools
import json
from pathlib import Path

import executable
import matplotlib

matplotlib.use("agg")
from matplotlib import pyplot

SOLVERS = ("subspace", "newton", "adamw")
TARGETS = ("labels", "predictions")
LIMITS = (50, 200, 600)
DTYPE = ("--dtype", "bfloat16")  # as in examples/snippets.yaml
MARKERS = {"subspace": "o", "newton": "s", "adamw": "^"}


def outcome(*words):
    return json.loads(executable.run(*words, "--json", "-q"))


def cached(file, compute):
    if not file.exists():
        result = compute()
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(result, indent=1) + "\n")
    return json.loads(file.read_text())


class Run:
    """A finished seed of `merganser run` and its data."""

    def __init__(self, out, data, start=None):
        self.out = out
        self.data = data
        results = json.loads((out / "results.json").read_text())
        self.models = {model["name"]: model for model in results["models"]}
        self.start = start or results["best"]["loss"]
        if self.start not in self.models:
            raise SystemExit(f"--start must be one of {', '.join(self.models)}")
        self.experts = [m["name"] for m in results["models"] if m["kind"] == "expert"]
        self.sets = results["sets"]

    @functools.cached_property
    def start_id(self):
        """The start's name and a hash of its weights: those of another are new."""
        folder = self.out / self.models[self.start]["path"]
        digest = hashlib.sha256()
        for file in sorted(folder.glob("*.safetensors")):
            digest.update(file.read_bytes())
        return f"{self.start}_{digest.hexdigest()[:8]}"

    def file(self, name, part):
        """The examples that the run used: its sample or the whole file."""
        sample = self.out / "data" / name / f"{part}.jsonl"
        return sample if sample.exists() else self.data / name / f"{part}.jsonl"

    def refine(self, out, solver, targets, limit):
        arguments = ["--model", self.out / self.models[self.start]["path"]]
        arguments += ["--base", self.out / "models" / "base"]
        for name in self.sets:
            expert = name if name in self.experts else "base"
            arguments += ["--expert", self.out / "models" / expert]
            arguments += ["--data", self.file(name, "train")]
            arguments += ["--fisher", self.out / "fishers" / f"{expert}.safetensors"]
        options = ("--solver", solver, "--targets", targets, "--limit", limit)
        # Resumes what was interrupted.
        resume = ["--resume"] if out.exists() else []
        settings = ("--max-length", 64, "--seed", 1, *DTYPE)
        return outcome("refine", *arguments, *options, *settings, *resume, "--out", out)

    def evaluate(self, model):
        """Means over the test sets: (accuracy, loss)."""
        tests = []
        for name in self.sets:
            tests += ["--data", self.file(name, "test")]
        sets = outcome("eval", "--model", model, *tests, "--max-length", 64, *DTYPE)
        return [sum(s[key] for s in sets) / len(sets) for key in ("accuracy", "loss")]

    def average(self, name):
        average = self.models[name]["average"]
        return average["accuracy"], average["loss"]


def measure(run, out, targets, solver, limit):
    name = f"{run.start_id}_{solver}_{targets}_{limit}"
    report = cached(
        out / f"{name}.json",
        lambda: run.refine(out / name, solver, targets, limit),
    )
    tests = cached(out / f"{name}.tests.json", lambda: run.evaluate(out / name))
    return targets, solver, limit, report, tests


def draw(rows, start, target, limits, file):
    figure, all_axes = pyplot.subplots(1, 2, sharey=True, figsize=(9, 4))
    for axes, targets in zip(all_axes, TARGETS, strict=True):
        for solver in SOLVERS:
            points = [
                (n, t[1]) for g, s, n, _, t in rows if (g, s) == (targets, solver)
            ]
            axes.plot(*zip(*points, strict=True), MARKERS[solver] + "-", label=solver)
        axes.axhline(start, color="black", linestyle=":", label="merge")
        axes.axhline(target, color="black", linestyle="--", label="joint training")
        axes.set_xscale("log")
        axes.set_xticks(limits, [str(n) for n in limits], minor=False)
        axes.minorticks_off()
        axes.set_xlabel("examples per task")
        axes.set_title(f"targets: {targets}")
    all_axes[0].set_ylabel("test loss, mean over the sets (nats)")
    all_axes[1].legend()
    figure.tight_layout()
    figure.savefig(file, dpi=120)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("data/snippets"))
    parser.add_argument("--run", type=Path, default=Path("out/snippets"))
    parser.add_argument("--out", type=Path, default=Path("out/refine"))
    parser.add_argument("--start", help="model to start from; default: best merge")
    parser.add_argument(
        "--limits", type=int, nargs="+", default=LIMITS, help="examples per task"
    )
    arguments = parser.parse_args()
    run = Run(arguments.run, arguments.data, arguments.start)
    accuracy, loss = run.average(run.start)
    best_accuracy, target = run.average("target")
    print("| targets | solver | examples | kept step | accuracy | loss | share | s |")
    print("|---|---|--:|--:|--:|--:|--:|--:|")
    print(f"| {run.start} | | 0 | | {accuracy:.1%} | {loss:.3f} | 0 % | |")
    rows = []
    for choice in itertools.product(TARGETS, SOLVERS, arguments.limits):
        row = measure(run, arguments.out, *choice)
        targets, solver, limit, report, (own_accuracy, own_loss) = row
        share = (loss - own_loss) / (loss - target)
        print(
            f"| {targets} | {solver} | {limit} | {report['kept_step']} | "
            f"{own_accuracy:.1%} | {own_loss:.3f} | {share:.0%} | "
            f"{report['seconds']:.0f} |",
            flush=True,
        )
        rows.append(row)
    print(
        f"| joint training | | all | | {best_accuracy:.1%} | {target:.3f} | 100 % | |"
    )
    draw(rows, loss, target, arguments.limits, arguments.out / "refine.png")


if __name__ == "__main__":
    main()
