"""The weights that `weight: auto` of task_arithmetic finds from data and, without any,
from diagonal Fishers with and without their measured scales.

    PYTHONPATH=build/cpu/python python benchmarks/auto_weights.py out/snippets_seeds \\
        data/snippets --keep out/auto_weights_snippets

RUN is the output of a finished `merganser run` over seeds, with the merge `linear` and
one that uses a subspace. A set's train.jsonl and test.jsonl come from the first of
RUN's own data and DATA with DATA/SET/FILE. Fishers and the subspace of data are those
of RUN, which is only read; scales come from 600 training texts along the path to
`linear`. KEEP keeps scales and outcomes; existing ones are not computed again. Prints
Markdown.
"""

import argparse
import json
import shutil
import statistics

import executable
import merganser
from fisher_points import Run, parse_arguments

DATA = "data"
SOURCES = {DATA: "data", "plain": "Fishers", "calibrated": "calibrated Fishers"}


class AutoRun(Run):
    def subspace(self, source):
        if source == DATA:
            return self.folder / "subspace.safetensors"
        file = self.keep / f"{source}.safetensors"
        if file.exists():
            return file
        models = ["--base", self.model("base")]
        models += ["--base-fisher", self.fisher(source, "base")]
        for name in self.experts:
            models += ["--expert", self.model(name)]
            models += ["--fisher", self.fisher(source, name)]
        executable.run("subspace", *models, "--out", file, "-q")
        return file

    def measure_auto(self, source):
        """The weights by expert, and (accuracy, loss) of every set."""
        file = self.keep / f"{source}.json"
        if not file.exists():
            self.keep.mkdir(parents=True, exist_ok=True)
            recipe = self.keep / f"{source}.yaml"
            content = {
                "merge_method": "task_arithmetic",
                "base_model": str(self.model("base")),
                "subspace": str(self.subspace(source)),
                "models": [{"model": str(self.model(e))} for e in self.experts],
                "parameters": {"weight": "auto"},
            }
            recipe.write_text(json.dumps(content))
            plan = json.loads(executable.run("plan", recipe, "--json"))
            weights = [float(model["weight"]) for model in plan["models"]]
            merged = self.keep / source
            shutil.rmtree(merged, ignore_errors=True)
            executable.run("merge", recipe, merged, "-q")
            file.write_text(json.dumps([weights, self.evaluate(merged)]))
            shutil.rmtree(merged)
        return json.loads(file.read_text())

    def shares(self, source):
        """The base's curvature along each task vector over that of the expert."""
        content = merganser.SubspaceResult.load(self.subspace(source)).content
        count = len(self.experts)

        def along(loss):
            fisher = loss.fisher.sum(0) * loss.num_examples / sum(loss.counts)
            groups = len(content.groups)
            whole = fisher.view(len(fisher) // groups, groups, -1, groups).sum((1, 3))
            return whole.diagonal()

        base = along(content.base)
        experts = [along(loss) for loss in content.experts[:count]]
        return [(base[t] / experts[t][t]).item() for t in range(count)]

    def linear(self):
        """The same of the plain average."""
        file = self.keep / "linear.json"
        if not file.exists():
            file.write_text(json.dumps(self.evaluate(self.average)))
        weights = [1 / len(self.experts)] * len(self.experts)
        return weights, json.loads(file.read_text())


def with_error(values, digits):
    error = statistics.stdev(values) / len(values) ** 0.5
    return f"{statistics.mean(values):.{digits}f} ± {error:.{digits}f}"


def row(name, found, shares=()):
    """Weights of every seed and means over them; accuracy and loss are averages of
    sets."""
    weights = [
        ", ".join(f"{w:.3f}" for w in of_expert)
        for of_expert in zip(*(weights for weights, _ in found), strict=True)
    ]
    accuracy, loss = (
        [statistics.mean(one[i] for one in sets) for _, sets in found] for i in (0, 1)
    )
    cells = [
        name,
        *weights,
        f"{min(shares):.1f} to {max(shares):.1f}" if shares else "",
    ]
    cells += [with_error([100 * x for x in accuracy], 2), with_error(loss, 4)]
    return f"| {' | '.join(cells)} |"


def main():
    options = parse_arguments(__doc__, "out/auto_weights")
    runs = []
    for folder in sorted((options.run / "seeds").iterdir()):
        given = {"run": folder, "keep": options.keep / folder.name}
        given["data"] = [folder / "data", *options.data]
        runs.append(AutoRun(argparse.Namespace(**vars(options) | given)))
    experts = runs[0].experts
    print(f"| scales | {' | '.join(['base', *experts])} |")
    print(f"|---|{'--:|' * (len(experts) + 1)}")
    for number, run in enumerate(runs):
        scales = [run.scale("calibrated", name) for name in ["base", *experts]]
        print(f"| seed {number} | {' | '.join(scales)} |", flush=True)
    columns = ["weights from", *experts, "H0 / Ht", "accuracy, %", "loss"]
    print(f"\n| {' | '.join(columns)} |")
    print(f"|---|{'--:|' * (len(columns) - 1)}")
    print(row("`linear`", [run.linear() for run in runs]), flush=True)
    for source, name in SOURCES.items():
        found = [run.measure_auto(source) for run in runs]
        shares = [share for run in runs for share in run.shares(source)]
        print(row(name, found, shares), flush=True)


if __name__ == "__main__":
    main()
