"""Directories as `merganser run` leaves them, with invented models: what a report
reads, with or without the parts that an experiment may lack, of one seed or several."""

import json
import math
from itertools import combinations

import numpy
from safetensors.numpy import save_file

SETS = ["movie", "amazon", "nyt"]
EXAMPLES = {"movie": 120, "amazon": 80, "nyt": 100}
BINS = 15
SHARED = ("merganser", "sets", "base_data", "majority", "gap")  # by all seeds
PARTS = ("removed", "rest")  # of the sets, in a removal
# name: kind, strength of the labels' signal, sharpness of the probabilities
MODELS = {
    "base": ("base", 1.0, 1.0),
    "amazon": ("expert", 1.2, 1.2),
    "nyt": ("expert", 1.3, 1.2),
    "target": ("target", 2.2, 1.0),
    "linear": ("merge", 1.6, 0.9),
    "task_arithmetic": ("merge", 1.1, 3.0),
    "fisher": ("merge", 1.7, 0.9),
    "gradient_matching": ("merge", 1.8, 1.6),
    "refined": ("refined", 2.0, 1.2),
}
GROWING = {  # merges of one and of two experts, by method
    "fisher_1": ("fisher", ["amazon"]),
    "fisher": ("fisher", ["amazon", "nyt"]),
    "gradient_matching_1": ("gradient_matching", ["amazon"]),
    "gradient_matching": ("gradient_matching", ["amazon", "nyt"]),
}
EXPERIMENT = "encoder: encoder # <b>not a tag</b> & more\nseeds: [0, 1]\n"


def make(out, *, full=True, seeds=()):
    """Writes OUT; `full` adds everything that is optional. Returns results.json."""
    if not seeds:
        return _make_seed(out, 0, full)
    runs = [_make_seed(out / "seeds" / str(seed), seed, full) for seed in seeds]
    together = {key: runs[0][key] for key in SHARED}
    together |= {
        "seeds": list(seeds),
        "models": [
            _over_seeds(same)
            for same in zip(*(run["models"] for run in runs), strict=True)
        ],
        "output": [f"seeds/{seed}/{runs[0]['output']}" for seed in seeds],
        "stages": [
            {**stage, "name": f"seed {seed}: {stage['name']}"}
            for seed, run in zip(seeds, runs, strict=True)
            for stage in run["stages"]
        ],
        "seconds": 15.0 * len(seeds),
        "experiment": EXPERIMENT,
    }
    if full:
        together["comparisons"] = runs[0]["comparisons"]
        removed = [run["removal"]["models"] for run in runs]
        together["removal"] = {
            **runs[0]["removal"],
            "models": [_over_seeds(same, PARTS) for same in zip(*removed, strict=True)],
        }
        chosen = [run["sweeps"][0]["chosen"] for run in runs]
        together["sweeps"] = [{**s, "chosen": chosen} for s in runs[0]["sweeps"]]
    return _write(out, together)


def _write(out, results):
    out.mkdir(parents=True, exist_ok=True)
    (out / "results.json").write_text(json.dumps(results, indent=2))
    return results


def _make_seed(out, seed, full):
    random = numpy.random.default_rng(seed)
    labels = {key: random.integers(0, 2, EXAMPLES[key]) for key in SETS}
    results = {
        "merganser": "0.1.0",
        "sets": SETS,
        "base_data": SETS[0],
        "majority": {key: _majority(labels[key]) for key in SETS},
        "models": [],
        "best": {"accuracy": "refined", "loss": "refined"},
        "gap": {"from": "task_arithmetic", "to": "target"},
        "output": "merges/gradient_matching/model",
        "stages": _stages(),
        "seconds": 15.0,
        "experiment": EXPERIMENT,
    }
    names = {**MODELS, **dict.fromkeys(GROWING)} if full else MODELS
    (out / "evaluations").mkdir(parents=True)
    counts = {key: {"train": [60, 70], "test": [50, 50]} for key in SETS}
    (out / "data.json").write_text(json.dumps(counts))
    right, losses = {}, {}
    for name in names:
        kind, signal, sharpness = MODELS.get(name, MODELS["amazon"])
        kind = "merge" if name not in MODELS else kind
        found = {
            key: _probabilities(random, labels[key], signal, sharpness) for key in SETS
        }
        right[name] = {key: found[key].argmax(1) == labels[key] for key in SETS}
        losses[name] = numpy.concatenate(
            [-numpy.log(found[k][range(len(labels[k])), labels[k]]) for k in SETS]
        )
        model = {"name": name, "kind": kind, "path": f"merges/{name}/model"}
        model["sets"] = {key: _scores(found[key], labels[key], full) for key in SETS}
        model["average"] = {
            key: float(numpy.mean([s[key] for s in model["sets"].values()]))
            for key in model["sets"]["movie"]
            if key != "examples"
        }
        pooled = numpy.concatenate([right[name][key] for key in SETS])
        model["average"]["accuracy_over_examples"] = float(pooled.mean())
        if full:
            _add_options(model, random)
            tensors = {key: found[key].astype("float32") for key in SETS}
            tensors |= {f"{key}.labels": labels[key] for key in SETS}
            save_file(tensors, out / "evaluations" / f"{name}.safetensors")
        results["models"].append(model)
    if full:
        results["comparisons"] = [
            _compare(a, b, right, losses) for a, b in combinations(names, 2)
        ]
        results["sweeps"] = [
            _sweep(name, random) for name in ("task_arithmetic", "fisher")
        ]
        results["refinements"] = [_refinement()]
        results["removal"] = _removal(random)
    return _write(out, results)


def _majority(labels):
    return float(max(labels.mean(), 1 - labels.mean()))


def _probabilities(random, labels, signal, sharpness):
    noise = random.normal(size=len(labels))
    logits = sharpness * (signal * (2 * labels - 1) + 1.3 * noise)
    second = 1 / (1 + numpy.exp(-logits))
    return numpy.stack([1 - second, second], 1)


def _scores(probabilities, labels, full):
    found = {
        "examples": len(labels),
        "accuracy": float((probabilities.argmax(1) == labels).mean()),
        "loss": float(-numpy.log(probabilities[range(len(labels)), labels]).mean()),
    }
    if full:
        found["calibration_error"] = calibration_error(probabilities, labels)
    return found


def calibration_error(probabilities, labels):
    """Computes it by definition: one bin (lower, upper] after the other."""
    confidence = probabilities.max(1)
    correct = probabilities.argmax(1) == labels
    error = 0.0
    for i in range(BINS):
        inside = (confidence > i / BINS) & (confidence <= (i + 1) / BINS)
        if inside.any():
            gap = correct[inside].mean() - confidence[inside].mean()
            error += inside.mean() * abs(gap)
    return float(error)


def _add_options(model, random):
    name = model["name"]
    if model["kind"] not in ("base", "expert"):
        norms = {"norm": 40 * random.random() + 3, "h0_inverse_norm": random.random()}
        model["mismatch"] = {"total": {"mismatch": norms}}
    model["retained"] = 0.9 + 0.1 * random.random()
    if model["kind"] in ("merge", "refined"):
        model["share_of_gap"] = random.random()
    if model["kind"] == "merge":
        model["cost"] = {"examples": 1800, "seconds": 60.25, "bytes": 272_000_000}
    if name in GROWING:
        model["method"], model["experts"] = GROWING[name]


def _compare(a, b, right, losses):
    sets, gaps, variance = {}, [], 0.0
    for key in SETS:
        x, y = right[a][key], right[b][key]
        only_a, only_b = int((x & ~y).sum()), int((y & ~x).sum())
        n = only_a + only_b
        tail = sum(math.comb(n, k) for k in range(min(only_a, only_b) + 1)) / 2**n
        p = min(1.0, 2 * tail)
        sets[key] = {"only_a": only_a, "only_b": only_b, "mcnemar_p": p}
        gap = x.astype(float) - y
        gaps.append(gap)
        variance += gap.var() / len(gap) / len(SETS) ** 2
    pooled = numpy.concatenate(gaps)
    loss = losses[a] - losses[b]
    return {
        "a": a,
        "b": b,
        "sets": sets,
        "average": _interval(numpy.mean([g.mean() for g in gaps]), variance**0.5),
        "accuracy_over_examples": _interval(
            pooled.mean(), pooled.std() / len(pooled) ** 0.5
        ),
        "loss": {
            "difference": float(loss.mean()),
            "standard_error": float(loss.std() / len(loss) ** 0.5),
        },
    }


def _interval(difference, error):
    return {
        "difference": float(difference),
        "low": float(difference - 1.96 * error),
        "high": float(difference + 1.96 * error),
        "p": math.erfc(abs(difference) / max(error, 1e-12) / 2**0.5),
    }


def _sweep(name, random):
    values = [0.1, 0.2, 0.35, 0.5, 1, 2, 5]
    best = {"task_arithmetic": 0.5, "fisher": 0.9}[name]
    points = []
    for value in values:
        away = math.log(value / best) ** 2
        average = {
            "accuracy": 0.84 - 0.03 * away + 0.002 * random.random(),
            "loss": 0.4 + 0.1 * away,
            "calibration_error": 0.05 + 0.02 * away,
        }
        points.append({"value": value, "average": average})
    chosen = max(points, key=lambda point: point["average"]["accuracy"])
    return {
        "name": name,
        "method": name,
        "parameter": "weight",
        "chosen": chosen["value"],
        "values": points,
    }


def _refinement():
    steps = [
        {
            "step": i,
            "objective": 0.3 + 0.2 / (i + 1),
            "held_out": 0.4 + 0.1 * (i - 2) ** 2,
        }
        for i in range(5)
    ]
    return {
        "name": "refined",
        "solver": "subspace",
        "steps": steps,
        "kept_step": 2,
        "seconds": 4.2,
        "examples": 200,
    }


def _removal(random):
    models = [
        {"name": name, "kind": name}
        | {
            part: dict(
                zip(("accuracy", "loss", "distance"), random.random(3), strict=True)
            )
            for part in PARTS
        }
        for name in ("target", "retrained", "removal")
    ]
    return {"data": "nyt", "from": "target", "models": models}


def _stages():
    names = ["data", "train base", "train amazon", "merge linear", "evaluate linear"]
    return [
        {
            "name": name,
            "seconds": 3.0,
            "inputs": {"program": "0.1.0", "seed": 0},
            "output": f"{number:032x}",
        }
        for number, name in enumerate(names)
    ]


def _over_seeds(models, parts=("average",)):
    """Means and standard errors of one model over seeds: of some of its entries, and of
    its sets if it has them."""

    def over(function, scores):
        return {key: function([score[key] for score in scores]) for key in scores[0]}

    def error(values):
        return float(numpy.std(values, ddof=1) / len(values) ** 0.5)

    together = {key: value for key, value in models[0].items() if key != "path"}
    together["standard_error"] = {}
    for function, place in (
        (lambda values: float(numpy.mean(values)), together),
        (error, together["standard_error"]),
    ):
        for part in parts:
            place[part] = over(function, [model[part] for model in models])
        if "sets" in models[0]:
            place["sets"] = {
                key: over(function, [model["sets"][key] for model in models])
                for key in SETS
            }
    return together
