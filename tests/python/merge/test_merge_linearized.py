"""Merges of models that were trained in the tangent space: displacements in ordinary
model directories, which every method takes."""

import json

import hf_training
import merganser
import pytest
import torch
from command import run
from merge_inputs import load_model
from training_inputs import make_bert, make_data
from transformers import AutoModelForSequenceClassification, AutoTokenizer

pytestmark = pytest.mark.slow
EXPERTS = ("one", "two")
WEIGHTS = {"one": 0.9, "two": 0.4}
COUNT = 24  # examples of each data set
TRAINING = {"lr": 3e-3, "epochs": 2, "batch_size": 8}


def of_executable(base, data, out):
    """merganser train --linearized."""
    options = [f"--{name}={value}" for name, value in TRAINING.items()]
    options = [option.replace("_", "-") for option in options]
    data = ("--train", data, "--max-length", "24", "--linearized")
    run("train", "--model", base, "--out", out, *data, *options, "-q")


def of_python(base, data, out):
    """merganser.linearize, and a Trainer of transformers."""
    model = AutoModelForSequenceClassification.from_pretrained(base)
    tokenizer = AutoTokenizer.from_pretrained(base)
    examples = [json.loads(line) for line in data.read_text().splitlines()]
    batch = tokenizer([x["text"] for x in examples], padding=True, return_tensors="pt")
    batch["labels"] = torch.tensor([x["label"] for x in examples])
    linear = merganser.linearize(model)
    options = {"learning_rate": TRAINING["lr"], "num_train_epochs": TRAINING["epochs"]}
    options |= {"save_strategy": "epoch"}
    trainer = hf_training.make_trainer(
        out.with_name(out.name + "-run"), linear, hf_training.rows(batch), **options
    )
    trainer.train()
    linear.save_pretrained(out)
    tokenizer.save_pretrained(out)


@pytest.fixture(scope="module", params=[of_executable, of_python])
def folder(request, tmp_path_factory):
    """A base, two experts of its tangent space, and the files that merges need."""
    folder = tmp_path_factory.mktemp("linearized")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        make_bert(folder / "base")
    for seed, name in enumerate(("base", *EXPERTS)):
        make_data(folder / f"{name}.jsonl", COUNT, seed)
    pairs = []
    for name in EXPERTS:
        request.param(folder / "base", folder / f"{name}.jsonl", folder / name)
        pairs += ["--expert", folder / name, "--data", folder / f"{name}.jsonl"]
    for name in ("base", *EXPERTS):
        model = ("--model", folder / name, "--data", folder / f"{name}.jsonl")
        for kind in ("fisher", "gram"):
            out = ("--out", folder / f"{name}.{kind}.safetensors")
            against = ()
            if kind == "fisher" and name != "base":
                against = ("--base", folder / "base")
                against += ("--base-data", folder / "base.jsonl")
            run(kind, *model, *out, *against, "--max-length", "24", "-q")
    run(
        *("subspace", "--base", folder / "base", "--base-data", folder / "base.jsonl"),
        *(*pairs, "--max-length", "24", "-q"),
        *("--out", folder / "subspace.safetensors"),
    )
    return folder


ALONE = {"slerp": {"t": 0.3}, "passthrough": {}}  # methods of one model


def recipe_of(method, needs):
    """The recipe with every file that the method needs."""
    names = EXPERTS[:1] if method in ALONE else EXPERTS
    recipe = {"merge_method": method, "models": [{"model": name} for name in names]}
    if method in ALONE:
        recipe["parameters"] = ALONE[method]
    for model in recipe["models"]:
        if method not in (*ALONE, "model_stock", "tsv_m", "iso_c"):
            model["parameters"] = {"weight": WEIGHTS[model["model"]]}
        for kind in {"fisher", "gram"} & set(needs):
            model[kind] = f"{model['model']}.{kind}.safetensors"
    for kind in {"base_fisher", "base_gram"} & set(needs):
        recipe[kind] = f"base.{kind.removeprefix('base_')}.safetensors"
    if "base_model" in needs:
        recipe["base_model"] = "base"
    if "subspace" in needs:
        recipe["subspace"] = "subspace.safetensors"
    return recipe


def merge(folder, method, needs, out):
    path = folder / f"{method}.yaml"
    path.write_text(json.dumps(recipe_of(method, needs)))
    merganser.merge_recipe(path, out)
    return load_model(out)


def test_every_method(folder, tmp_path):
    """Each gives a model that transformers loads, other than the base."""
    methods = json.loads(run("methods", "--json").stdout)
    base = load_model(folder / "base")
    for method in methods:
        out = tmp_path / method["name"]
        merged = merge(folder, method["name"], method["needs"], out)
        assert merged.keys() == base.keys()
        moved = max(abs(merged[name] - x).max() for name, x in base.items())
        assert 0 < moved < 1, method["name"]
        AutoModelForSequenceClassification.from_pretrained(out)


def test_linear_and_task_arithmetic(folder, tmp_path):
    """In numpy's float64, from the displacements."""
    base, one, two = (load_model(folder / name) for name in ("base", *EXPERTS))
    linear = merge(folder, "linear", [], tmp_path / "linear")
    arithmetic = merge(folder, "task_arithmetic", ["base_model"], tmp_path / "sum")
    a, b = WEIGHTS.values()
    moved = 0.0
    for name, x in base.items():
        x = x.astype(float)
        tau, other = (y[name].astype(float) - x for y in (one, two))
        moved = max(moved, abs(tau).max(), abs(other).max())
        mean = x + (a * tau + b * other) / (a + b)
        for found, expected in (
            (linear[name], mean),
            (arithmetic[name], x + a * tau + b * other),
        ):
            error = abs(found - expected).max()
            assert error <= 1e-6 * max(1.0, abs(expected).max()), name
    assert moved > 1e-3
