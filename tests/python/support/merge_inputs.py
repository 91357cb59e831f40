"""Tiny models with Fishers on disk, and the merge formulas in numpy."""

import json
import subprocess
from pathlib import Path

import numpy
import tiny_models
import torch
from command import executable
from safetensors.numpy import load_file, save_file

NUM_EXAMPLES = {"base": 1000, "a": 200, "b": 300}
WEIGHTS = {"a": 1.0, "b": 0.5}
RHO = {"a": 0.3, "b": -0.1}  # as measured, of measured_gradient_matching
DELTA, CLAMP, FLOOR = 1e-12, 0.05, 1e-6


def make_models(folder: Path, **size):
    """Writes models base, a and b with tokenizers, and <name>_fisher.safetensors."""
    for seed, name in enumerate(NUM_EXAMPLES):
        torch.manual_seed(0)
        model = tiny_models.bert(**size)
        torch.manual_seed(seed)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += 0.05 * seed * torch.randn_like(parameter)
        save_model(model, folder / name)
        make_fisher(folder, name)


def save_model(model, folder: Path, **options):
    from transformers import BertTokenizerFast

    model.save_pretrained(folder, **options)
    words = [f"word{i}" for i in range(model.config.vocab_size - 5)]
    vocab = folder / "vocab.txt"
    vocab.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]))
    BertTokenizerFast(str(vocab)).save_pretrained(folder)


def content_hash(path: Path) -> str:
    command = [executable(), "inspect", str(path), "--json"]
    return json.loads(subprocess.check_output(command))["content_hash"]


def make_fisher(folder: Path, name: str, change=lambda tensors: None):
    """Writes a Fisher of the model `name`; `change` may damage its tensors."""
    random = numpy.random.default_rng(NUM_EXAMPLES[name])
    tensors = {
        key: (1e-5 * random.random(value.shape) ** 4).astype(numpy.float32)
        for key, value in load_model(folder / name).items()
    }
    change(tensors)
    metadata = {
        "format_version": "1",
        "estimator": "exact",
        "num_examples": str(NUM_EXAMPLES[name]),
        "num_examples_used": str(NUM_EXAMPLES[name]),
        "samples": "1",
        "seed": "0",
        "labels": "model",
        "base_model_hash": content_hash(folder / name),
    }
    if name in RHO:
        metadata["task_vector"] = json.dumps(task_vector(folder, name))
    save_file(tensors, folder / f"{name}_fisher.safetensors", metadata)


def task_vector(folder: Path, name: str) -> dict:
    """Statistics from which the model's rho follows, with a standard error of 0.05."""
    curvature = 2.0
    scale = NUM_EXAMPLES[name] / (NUM_EXAMPLES["base"] * curvature)
    return {
        "base_model_hash": content_hash(folder / "base"),
        "num_examples_used": 10,
        "base_num_examples_used": 20,
        "slope": -RHO[name] / scale,
        "slope_standard_error": 0.05 / scale,
        "curvature": curvature,
        "curvature_standard_error": 0.0,
        "groups": {},
    }


def load_model(folder: Path):
    tensors = {}
    for file in sorted(folder.glob("*.safetensors")):
        tensors.update(load_file(file))
    return tensors


def recipe(method: str, **more) -> str:
    """A recipe as JSON, which is also YAML."""
    models = [
        {
            "model": name,
            "fisher": f"{name}_fisher.safetensors",
            "parameters": {"weight": weight},
        }
        for name, weight in WEIGHTS.items()
    ]
    return json.dumps(
        dict(
            merge_method=method,
            base_model="base",
            base_fisher="base_fisher.safetensors",
            models=models,
            parameters={"delta": DELTA, "clamp": CLAMP, "floor": FLOOR},
            **more,
        ),
        indent=2,
    )


def oracle(folder: Path, method: str):
    """The merge by docs/method.md, section 2, in float64, of make_models' models."""
    base = load_model(folder / "base")
    models = {name: load_model(folder / name) for name in WEIGHTS}
    fishers = {n: load_file(folder / f"{n}_fisher.safetensors") for n in NUM_EXAMPLES}
    merged = {}
    for key in base:
        theta_0 = base[key].astype(float)
        f_0 = fishers["base"][key].astype(float)
        merged[key] = _merge(
            method,
            theta_0,
            f_0,
            [m[key].astype(float) for m in models.values()],
            [fishers[name][key].astype(float) for name in WEIGHTS],
        )
    return merged


def _merge(method, theta_0, f_0, thetas, f):
    w = list(WEIGHTS.values())
    tau = [theta - theta_0 for theta in thetas]
    h_0 = NUM_EXAMPLES["base"] * f_0 + DELTA
    h = [NUM_EXAMPLES[name] * x for name, x in zip(WEIGHTS, f, strict=True)]

    def total(values):
        return sum(a * x for a, x in zip(w, values, strict=True))

    if method == "linear":
        return total(thetas) / sum(w)
    if method == "task_arithmetic":
        return theta_0 + total(tau)
    if method == "fisher":
        return total([x * y for x, y in zip(h, thetas, strict=True)]) / total(h)
    if method == "fisher_base":
        update = total([x * y for x, y in zip(h, tau, strict=True)])
        return theta_0 + update / (h_0 + total(h))
    if method == "measured_gradient_matching":
        a = [r * h_0 + x for r, x in zip(RHO.values(), h, strict=True)]
        update = total([x * y for x, y in zip(a, tau, strict=True)])
        return theta_0 + update / (h_0 + total(h))
    if method == "ewr":
        g_0 = numpy.maximum(f_0, FLOOR)
        g = [numpy.maximum(x, FLOOR) for x in f]
        update = total([x * y for x, y in zip(g, tau, strict=True)])
        return (g_0 * theta_0 - update) / (g_0 + total(g))
    update = total([(h_0 + x) * y for x, y in zip(h, tau, strict=True)])
    if method == "gradient_matching":
        return theta_0 + update / (h_0 + total(h))
    assert method == "removal"
    rest = h_0 - total(h)
    with numpy.errstate(divide="ignore", invalid="ignore"):
        return theta_0 - numpy.where(
            rest < CLAMP * (h_0 + total(h)), total(tau), update / rest
        )
