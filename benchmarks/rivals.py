r"""Other merges on the models of a finished experiment: Gram matrices of task vectors,
TSV-M and Iso-C, which need the models alone; RegMean++, a search as DF-Merge's and
AdaMerging, which need texts.

    export PYTHONPATH=build/cpu/python
    python benchmarks/rivals.py out/snippets --experiment examples/snippets.yaml
    python benchmarks/rivals.py out/imdb_plus/seeds/0 --work out/rivals_imdb_plus \
        --experiment examples/imdb_plus.yaml

Needs what `merganser run` left in the first argument. Runs `merganser merge`, `search`
and `eval` and the package's functions, keeps every outcome under --work and runs what
is missing. A scale is chosen by accuracy, and weights are searched by loss, on
--validation random texts of each of the experiment's validation parts, or without these
of each training file, which the models were trained on. Test sets are only measured,
except by adamerging, which adapts to their texts without labels, as its authors do, and
to training texts in a row of its own. Prints a Markdown table.
"""

import argparse
import functools
import json
import random
import shutil
from pathlib import Path

import executable
import merganser
import yaml
from torch.utils.data import DataLoader
from transformers import AutoModelForSequenceClassification, AutoTokenizer

SCALES = [0.5, 0.7, 1, 1.5, 2, 3, 4, 5]
OF_EXPERIMENT = [  # rows of its results, for comparison
    "linear",
    "task_arithmetic_0.5",
    "task_arithmetic_best",
    "gradient_matching",
    "regmean",
    "block_gradient_matching",
    "subspace_gradient_matching",
    "target",
]
TASK_VECTORS = {"gram": "task_vectors"}
ROWS = [  # name in the table, method, keys of each model, of the merge, parameters
    ("`regmean`, `gram: task_vectors`", "regmean", TASK_VECTORS, {}, {}),
    (
        "the same, `off_diagonal: 1`",
        "regmean",
        TASK_VECTORS,
        {},
        {"off_diagonal": 1},
    ),
    (
        "`block_gradient_matching`, `gram: task_vectors`",
        "block_gradient_matching",
        TASK_VECTORS,
        {},
        {},
    ),
    (
        "the same with `base_gram`",
        "block_gradient_matching",
        TASK_VECTORS,
        {"base_gram": "base"},
        {},
    ),
    ("`tsv_m`", "tsv_m", {}, {}, {}),
    ("`tsv_m`, chosen", "tsv_m", {}, {}, None),
    ("`iso_c`", "iso_c", {}, {}, {}),
    ("`iso_c`, chosen", "iso_c", {}, {}, None),
]


class Rivals:
    def __init__(self, options):
        self.options = options
        self.out, self.work = options.out.resolve(), options.work.resolve()
        folder = options.experiment.resolve().parent
        self.settings = yaml.safe_load(options.experiment.read_text())
        self.tests, self.trains, self.validations = {}, {}, {}
        for name, files in self.settings["data"].items():
            self.tests[name] = self.sampled(name, "test", folder / files["test"])
            self.trains[name] = self.sampled(name, "train", folder / files["train"])
            self.validations[name] = self.draw(name)

    def sampled(self, name, part, whole):
        own = self.out / "data" / name / f"{part}.jsonl"
        return own if own.exists() else whole

    def draw(self, name):
        own = self.out / "data" / name / "validation.jsonl"
        whole = own if own.exists() else self.trains[name]
        lines = whole.read_text(encoding="utf-8").rstrip("\n").split("\n")
        file = self.work / "validation" / f"{name}.jsonl"
        file.parent.mkdir(parents=True, exist_ok=True)
        chosen = random.Random(0).sample(lines, self.options.validation)
        file.write_text("\n".join(chosen) + "\n", encoding="utf-8")
        return file

    def recipe(self, method, of_model, of_merge, parameters):
        fishers = self.out / "fishers"
        models = [
            {
                "model": str(self.out / "models" / name),
                "fisher": str(fishers / f"{name}.safetensors"),
            }
            | of_model
            for name in self.settings["experts"]["data"]
        ]
        made = {
            "merge_method": method,
            "base_model": str(self.out / "models" / "base"),
            "base_fisher": str(fishers / "base.safetensors"),
            "models": models,
            "parameters": parameters,
        }
        if "base_gram" in of_merge:
            made["base_gram"] = str(self.base_gram())
        return made

    def base_gram(self):
        own = self.out / "grams" / "base.safetensors"
        file = own if own.exists() else self.work / "base_gram.safetensors"
        if not file.exists():
            data = self.trains[self.settings["base"]["data"]]
            limit = self.settings["fisher"]["limit"]
            model = self.out / "models" / "base"
            where = ("--model", model, "--data", data, "--out", file)
            executable.run("gram", *where, "--limit", limit, *self.type()[:2], "-q")
        return file

    def type(self):
        settings = self.settings
        return "--max-length", settings["max_length"], "--dtype", settings["dtype"]

    def write(self, recipe):
        path = self.work / "recipe.yaml"
        path.write_text(yaml.safe_dump(recipe))
        return path

    def merge(self, recipe):
        """Returns a function that writes the merge to a directory."""
        return lambda out: executable.run("merge", self.write(recipe), out, "-q")

    def search(self, out):
        """Writes the Fisher average with the weights that a search finds."""
        recipe = self.write(self.recipe("fisher", {}, {}, {}))
        found = self.work / "search"
        data = options_of(self.validations)
        over = ("--over", "models.*.weight=0..1")
        executable.run(
            "search", recipe, *over, *data, *self.type(), "--out", found, "-q"
        )
        executable.run("merge", found / "best.yaml", out, "-q")

    def in_memory(self, merge):
        """Returns a function that writes merge(base, experts) to a directory."""

        def write(out):
            models = self.out / "models"
            base, *experts = (
                AutoModelForSequenceClassification.from_pretrained(models / name)
                for name in ("base", *self.settings["experts"]["data"])
            )
            base.load_state_dict(merge(base, experts))
            shutil.copytree(models / "base", out)
            base.save_pretrained(out)

        return write

    def batches(self, files, size, limit=None):
        """Batches of random texts of each expert's set."""
        tokenizer = AutoTokenizer.from_pretrained(self.out / "models" / "base")
        options = {"padding": True, "truncation": True, "return_tensors": "pt"}
        options["max_length"] = self.settings["max_length"]
        found = []
        for name in self.settings["experts"]["data"]:
            lines = files[name].read_text(encoding="utf-8").splitlines()
            random.Random(0).shuffle(lines)
            texts = [json.loads(line)["text"] for line in lines[:limit]]
            encode = functools.partial(tokenizer, **options)
            found.append(DataLoader(texts, size, collate_fn=encode))
        return found

    def sample(self):
        return self.batches(self.trains, 32, self.settings["fisher"]["limit"])

    def regmean(self, _, experts):
        pairs = zip(experts, self.sample(), strict=True)
        grams = [merganser.gram(model, batches) for model, batches in pairs]
        return merganser.merge(None, experts, method="regmean", grams=grams)

    def regmean_plus_plus(self, _, experts):
        return merganser.regmean_plus_plus(experts, self.sample())

    def adamerging(self, files):
        return lambda base, experts: (
            merganser.adamerging(base, experts, self.batches(files, 16)).state_dict
        )

    def measure(self, key, build, sets):
        """Accuracy and loss on each set, of the model that build(directory) writes."""
        file = self.work / f"{key}.json"
        if not file.exists():
            folder = self.work / "merge"
            shutil.rmtree(folder, ignore_errors=True)
            build(folder)
            data = options_of(sets)
            text = executable.run(
                "eval", "--model", folder, *data, *self.type(), "--json", "-q"
            )
            file.write_text(text)
            shutil.rmtree(folder)
        return json.loads(file.read_text())

    def choose(self, row):
        """The scale with the highest accuracy on the validation texts."""

        def accuracy(scale):
            recipe = self.recipe(*row[1:4], {"lambda": scale})
            key, build = f"{row[1]}-{scale}", self.merge(recipe)
            found = self.measure(key, build, self.validations)
            return mean(found, "accuracy")

        return max(SCALES, key=accuracy)

    def print_row(self, row):
        parameters, scale = row[4], ""
        if parameters is None:
            scale = self.choose(row)
            parameters = {"lambda": scale}
        key = "".join(c for c in row[0] if c.isalnum())
        recipe = self.recipe(*row[1:4], parameters)
        found = self.measure(f"test-{key}-{scale}", self.merge(recipe), self.tests)
        print_columns(f"{row[0]} | {scale}", found)

    def print_with_texts(self):
        """Rows of the merges that need texts."""
        rows = {
            "`regmean`": self.in_memory(self.regmean),
            "`regmean_plus_plus`": self.in_memory(self.regmean_plus_plus),
            "`fisher`, weights searched": self.search,
            "`adamerging` to test texts": self.in_memory(self.adamerging(self.tests)),
            "`adamerging` to train texts": self.in_memory(self.adamerging(self.trains)),
        }
        for name, build in rows.items():
            key = "".join(c for c in name if c.isalnum())
            print_columns(f"{name} | ", self.measure(f"test-{key}", build, self.tests))

    def print_results(self):
        """Rows of the experiment itself."""
        models = json.loads((self.out / "results.json").read_text())["models"]
        for model in models:
            if model["name"] in OF_EXPERIMENT:
                print_columns(f"`{model['name']}` | ", list(model["sets"].values()))


def options_of(sets):
    return [argument for file in sets.values() for argument in ("--data", file)]


def print_columns(name, found):
    columns = [f"{100 * each['accuracy']:.1f}" for each in found]
    columns += [f"{100 * mean(found, 'accuracy'):.1f}", f"{mean(found, 'loss'):.3f}"]
    print(f"| {name} | {' | '.join(columns)} |", flush=True)


def mean(found, key):
    return sum(each[key] for each in found) / len(found)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--experiment", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("out/rivals"))
    parser.add_argument("--validation", type=int, default=300)
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    rivals = Rivals(options)
    names = list(rivals.tests)
    print(f"| merge | scale | {' | '.join(names)} | accuracy, % | loss |")
    print("|---|--:|" + "--:|" * (len(names) + 2))
    rivals.print_results()
    for row in ROWS:
        rivals.print_row(row)
    rivals.print_with_texts()


if __name__ == "__main__":
    main()
