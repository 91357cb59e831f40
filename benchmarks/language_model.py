r"""Merges of a language model's experts, and a set of texts taken out of it.

    scripts/fetch_model smollm2
    PYTHONPATH=build/cpu/python python benchmarks/language_model.py DATA \
        --model data/smollm2-135m-instruct --work out/language_model

DATA has {imdb,yelp,agnews,toxic,amazon}/{train,test}.jsonl, a line per text with
"text", and in toxic also "label": 1 for toxic texts, 0 for clean ones. amazon is for
testing alone.

Experts are trained from the base by next-token loss, all parameters, one epoch over
--train texts cut to --max-length tokens; the joint model on the texts of all three. The
base's training data are not at hand: texts that it writes itself, sampled from its
distribution, stand for them, and its number of examples N0 is that of the experts
together. Fishers are those of sequences (loss="causal_lm"): labels are sampled at every
position, and the gradient of a sequence's loss is squared. They, Gram matrices and the
subspace are of --limit training texts of each set.

The removal takes toxic texts out of a model trained on them and on AG News, with an
expert trained from it on the toxic texts; the expert on AG News is the model without
them.

Writes --work/merges.json and removals.json, with the loss of every text, and prints
Markdown tables: perplexities on --test texts of each set, and means of the loss per
token with their difference from one row and its standard error over the texts.
Models, Fishers and rows are kept when they are complete: the same command continues
after an interruption.
"""

import argparse
import functools
import math
import time
from pathlib import Path

import merganser
import torch
from kept_rows import KeptRows
from language_models import DTYPE, KEPT, REMOVED, TASKS, LanguageModels
from torch.nn import functional

MERGE_SETS = (*TASKS, "amazon", "own")
REMOVAL_SETS = (REMOVED, "clean", KEPT, "yelp", "own")
# name of a row: method, arguments of merganser.merge, statistics that it needs
MERGES = {
    "`linear`": ("linear", {}, ()),
    "`task_arithmetic`": ("task_arithmetic", {}, ()),
    "`fisher`": ("fisher", {}, ("fishers",)),
    "`fisher`, factored": ("fisher", {}, ("fishers factored",)),
    "`fisher`, argmax labels, batches squared": ("fisher", {}, ("fishers argmax",)),
    "`fisher_base`": ("fisher_base", {}, ("fishers", "base_fisher")),
    "`gradient_matching`": ("gradient_matching", {}, ("fishers", "base_fisher")),
    "`gradient_matching`, factored": (
        "gradient_matching",
        {},
        ("fishers factored", "base_fisher factored"),
    ),
    "`measured_gradient_matching`": (
        "measured_gradient_matching",
        {},
        ("fishers", "base_fisher"),
    ),
    "`subspace_gradient_matching`": ("subspace_gradient_matching", {}, ("subspace",)),
    "`regmean`": ("regmean", {}, ("grams",)),
    "`regmean`, `gram: task_vectors`": ("regmean", {"grams": "task_vectors"}, ()),
    "`block_gradient_matching`": (
        "block_gradient_matching",
        {},
        ("fishers", "base_fisher", "grams", "base_gram"),
    ),
    "`ties`": ("ties", {}, ()),
    "`tsv_m`": ("tsv_m", {}, ()),
    "`iso_c`": ("iso_c", {}, ()),
}
REMOVALS = {
    "negation, weight 0.5": ("task_arithmetic", {"weights": -0.5}, ()),
    "negation": ("task_arithmetic", {"weights": -1.0}, ()),
    "negation, weight 2": ("task_arithmetic", {"weights": -2.0}, ()),
    "negation, weight 3": ("task_arithmetic", {"weights": -3.0}, ()),
    "`removal`, weight 0.5": (
        "removal",
        {"weights": 0.5},
        ("fishers", "base_fisher"),
    ),
    "`removal`": ("removal", {}, ("fishers", "base_fisher")),
    "`removal`, factored": (
        "removal",
        {},
        ("fishers factored", "base_fisher factored"),
    ),
}


class Family:
    """A base, the experts trained from it, and what merges need of them."""

    def __init__(self, models, base, experts, base_sets):
        self.models, self.base, self.experts = models, base, experts
        self.base_sets = base_sets
        self.options = models.options

    @functools.cached_property
    def modules(self):
        """The base and then the experts, by name."""
        return {name: self.models.load(name) for name in (self.base, *self.experts)}

    @functools.cache  # noqa: B019 (as long as the run)
    def sample(self, name):
        """Batches of training texts of a model: of the base's sets, or of its own."""
        sets = self.base_sets if name == self.base else (name,)
        limit = self.options.limit // len(sets)
        sequences = [
            ids for x in sets for ids in self.models.sequences(x, "train")[:limit]
        ]
        return self.models.batches(sequences, 16)

    def number(self, name):
        """N of a model."""
        count = 1
        if name == self.base:  # the base's own texts: as many as those of the experts
            count = max(len(self.experts), len(self.base_sets))
        return count * self.options.train

    def fisher(self, name, form):
        """The Fisher of a model: its file, or, of argmax labels, the result."""
        module = self.modules[name]
        if form == "argmax":
            return argmax_fisher(module, self.sample(name), self.number(name))
        folder = self.models.work / "fishers"
        folder.mkdir(exist_ok=True)
        name_of_file = f"{self.base} {name}".replace(" ", "_")
        files = {
            storage: folder / f"{name_of_file}.{storage}.safetensors"
            for storage in ("factored", "float32")
        }
        if not files["float32"].exists():
            along = {}
            if name != self.base:
                along = {
                    "base": self.modules[self.base],
                    "base_data": self.sample(self.base),
                }
            result = merganser.fisher(
                module,
                self.sample(name),
                "mc",
                loss="causal_lm",
                seed=self.options.seed,
                dtype=DTYPE,
                num_examples=self.number(name),
                **along,
            )
            if along:
                total = result.task_vector.total
                rho = -total.slope.value / total.curvature.value
                print(f"{name}: rho {rho:.2f}", flush=True)
            for storage, file in files.items():
                result.save(file, storage=storage)
        return files[form or "float32"]

    def gram(self, name):
        return merganser.gram(
            self.modules[name],
            self.sample(name),
            num_examples=self.number(name),
            dtype=DTYPE,
        )

    def subspace(self):
        file = self.models.work / "subspace.safetensors"
        if not file.exists():
            base, *experts = self.modules.values()
            result = merganser.subspace_fisher(
                base,
                experts,
                [self.sample(name) for name in self.experts],
                self.sample(self.base),
                loss="causal_lm",
                seed=self.options.seed,
                dtype=DTYPE,
                num_examples=[self.number(name) for name in self.experts],
                base_num_examples=self.number(self.base),
            )
            result.save(file)
        return file

    @functools.cache  # noqa: B019 (as long as the run)
    def statistic(self, need):
        """An argument of merganser.merge, by its name and, for Fishers, their form."""
        name, _, form = need.partition(" ")
        if name == "subspace":
            return self.subspace()
        measure = self.gram if "gram" in name else lambda x: self.fisher(x, form)
        if name.startswith("base_"):
            return measure(self.base)
        return [measure(x) for x in self.experts]

    def merge(self, method, arguments, needs):
        statistics = {need.partition(" ")[0]: self.statistic(need) for need in needs}
        base, *experts = self.modules.values()
        return merganser.merge(base, experts, method=method, **arguments, **statistics)


def argmax_fisher(module, batches, number):
    """What squares of batch gradients of the likeliest tokens give: not a Fisher."""
    parameters = dict(module.named_parameters())
    diagonal = {name: torch.zeros_like(x) for name, x in parameters.items()}
    for batch in batches:
        inputs = {key: x for key, x in batch.items() if key != "labels"}
        with torch.autocast("cpu", DTYPE):
            logits = module(**inputs).logits[:, :-1]
        logits = logits[batch["labels"][:, 1:] != -100].float()
        loss = functional.cross_entropy(logits, logits.argmax(-1))
        gradients = torch.autograd.grad(loss, list(parameters.values()))
        for total, gradient in zip(diagonal.values(), gradients, strict=True):
            total += gradient.square() / len(batches)
    return merganser.FisherResult(diagonal, number, len(batches), "argmax")


class Rows(KeptRows):
    """Losses of models by row and set."""

    def __init__(self, models, table):
        file = models.work / f"{table}.json"
        super().__init__(file, models.options, ("work", "tables"))
        self.models = models

    def add(self, sets, name, build):
        """Measures the module that `build` returns."""
        if name in self.rows:
            return
        begin = time.monotonic()
        module = build()
        row = {data: self.models.losses(module, data) for data in sets}
        self.keep(name, row)
        shown = {data: round(mean_loss(texts), 3) for data, texts in row.items()}
        seconds = time.monotonic() - begin
        print(f"{name}: {shown}, {seconds:.0f} s", flush=True)


def mean_loss(texts):
    """Loss per token of a list of (loss, number of tokens)."""
    return sum(loss for loss, _ in texts) / sum(number for _, number in texts)


def difference(row, other, sets):
    """The difference of two rows' mean losses over sets and its standard error."""
    mean = variance = 0.0
    for data in sets:
        number = sum(n for _, n in row[data])
        paired = zip(row[data], other[data], strict=True)
        terms = [(a - b, n) for (a, n), (b, _) in paired]
        slope = sum(x for x, _ in terms) / number
        mean += slope / len(sets)
        squares = sum((x - slope * n) ** 2 for x, n in terms) / number**2
        variance += squares / len(sets) ** 2
    return mean, math.sqrt(variance)


def measure_merges(models):
    rows = Rows(models, "merges")
    family = Family(models, "base", TASKS, ("own",))
    for name in ("base", *TASKS):
        row = f"expert on {name}" if name in TASKS else name
        rows.add(MERGE_SETS, row, functools.partial(models.load, name))
    add_merges(rows, MERGE_SETS, family, MERGES)
    rows.add(MERGE_SETS, "joint", functools.partial(models.load, "joint"))
    return table(rows.rows, MERGE_SETS, {"loss": TASKS}, "`linear`")


def measure_removals(models):
    rows = Rows(models, "removals")
    family = Family(models, "with toxic", (REMOVED,), (KEPT, REMOVED))
    for name in ("base", "with toxic", KEPT):
        row = {"with toxic": "before", KEPT: "trained without them"}.get(name, name)
        rows.add(REMOVAL_SETS, row, functools.partial(models.load, name))
    add_merges(rows, REMOVAL_SETS, family, REMOVALS)
    averages = {f"loss, {name}": (name,) for name in (REMOVED, KEPT)}
    return table(rows.rows, REMOVAL_SETS, averages, "before")


def add_merges(rows, sets, family, merges):
    scratch = functools.cache(lambda: family.models.load("base"))

    def build(arguments):
        scratch().load_state_dict(family.merge(*arguments))
        return scratch()

    for name, arguments in merges.items():
        rows.add(sets, name, functools.partial(build, arguments))


def table(rows, sets, averages, reference):
    """Markdown: perplexities, and mean losses compared with those of a row."""
    columns = list(sets)
    for name in averages:
        columns += [name, f"compared with {reference}"]
    lines = [f"| model | {' | '.join(columns)} |", "|---|" + "--:|" * len(columns)]
    for name, row in rows.items():
        cells = [f"{math.exp(mean_loss(row[data])):.1f}" for data in sets]
        for average in averages.values():
            mean = sum(mean_loss(row[data]) for data in average) / len(average)
            change, error = difference(row, rows[reference], average)
            shown = f"{change:+.3f} ± {error:.3f}".replace("-", "−")
            cells += [f"{mean:.3f}", shown if error else ""]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


TABLES = {"merges": measure_merges, "removals": measure_removals}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("out/language_model"))
    parser.add_argument("--train", type=int, default=512)
    parser.add_argument("--test", type=int, default=64)
    parser.add_argument("--limit", type=int, default=64)
    parser.add_argument("--max-length", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--lr", type=float, default=5e-5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tables", nargs="+", default=list(TABLES), choices=TABLES)
    options = parser.parse_args()
    models = LanguageModels(options)
    for name in options.tables:
        print(f"\n{TABLES[name](models)}\n", flush=True)


if __name__ == "__main__":
    main()
