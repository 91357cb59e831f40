"""Models with Fishers and Gram matrices, in memory and on disk."""

import json

import merganser
import tiny_models
import torch
from merganser._C import AlongTaskVector, Estimate, TaskVectorStatistics
from safetensors.torch import load_file

ELEMENTWISE = [
    "linear",
    "task_arithmetic",
    "fisher",
    "fisher_base",
    "gradient_matching",
    "removal",
    "ewr",
    "measured_gradient_matching",
]
GRAMS = ["regmean", "block_gradient_matching"]
WITH_FISHERS = [*ELEMENTWISE[2:], "block_gradient_matching"]
WITH_BASE_FISHER = WITH_FISHERS[1:]
WEIGHTS = [0.9, 0.6]


class Files:
    """A base and the models a and b."""

    def __init__(self, folder, dtype=torch.float32):
        self.folder = folder
        self.names = ["base", "a", "b"]
        self.models = {}
        self.fishers = {}
        self.grams = {}
        base = tiny_models.distilbert()
        for n, name in enumerate(self.names):
            model = tiny_models.distilbert()
            model.load_state_dict(base.state_dict())
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter += 0.1 * n * torch.randn_like(parameter)
            model = model.to(dtype)
            model.save_pretrained(folder / name)
            self.models[name] = model.state_dict()
            self.fishers[name] = self.random_fisher(name, 100 + 7 * n)
            self.fishers[name].save(folder / f"{name}.fisher.safetensors")
            self.grams[name] = self.random_gram(name, 50 + 3 * n)
            self.grams[name].save(folder / f"{name}.gram.safetensors")

    def random_fisher(self, name, num_examples):
        """Values over many orders of magnitude, as in Fishers, with rows of zeros."""
        diagonal = {}
        for key, tensor in self.models[name].items():
            f = torch.exp(torch.randn(tensor.shape) * 6 - 20)
            f[: len(f) // 3] = 0
            diagonal[key] = f
        return merganser.FisherResult(
            diagonal,
            num_examples=num_examples,
            num_examples_used=num_examples,
            estimator="exact",
            base_model_hash=self.content_hash(name),
            task_vector=self.statistics(0.01 * num_examples),
        )

    def content_hash(self, name):
        return merganser.inspect(self.folder / name)["content_hash"]

    def statistics(self, slope):
        along = AlongTaskVector(Estimate(-slope, 0.1), Estimate(1.5, 0.1))
        return TaskVectorStatistics(
            base_model_hash=self.content_hash("base"),
            num_examples_used=50,
            base_num_examples_used=50,
            total=along,
            groups=[("head", along)],
        )

    def random_gram(self, name, num_examples):
        """Gram matrices of the attention's linear layers only."""
        matrices = {}
        for key, tensor in self.models[name].items():
            if "attention" in key and tensor.dim() == 2:
                a = torch.randn(2 * tensor.shape[1], tensor.shape[1])
                matrices[key] = a.T @ a
        return merganser.GramResult(matrices, num_examples, num_examples)

    def recipe(self, method, weights=WEIGHTS, names=("a", "b"), **options):
        content = {
            "merge_method": method,
            "base_model": "base",
            "models": [{"model": name} for name in names],
        } | options
        for model, weight in zip(content["models"], weights or [], strict=False):
            model["parameters"] = {"weight": weight}
        for kind, methods, with_base in (
            ("fisher", WITH_FISHERS, WITH_BASE_FISHER),
            ("gram", GRAMS, GRAMS[1:]),
        ):
            if method in methods:
                for model in content["models"]:
                    model[kind] = f"{model['model']}.{kind}.safetensors"
            if method in with_base:
                content[f"base_{kind}"] = f"base.{kind}.safetensors"
        path = self.folder / f"{method}.yaml"
        path.write_text(json.dumps(content))  # JSON is YAML
        return path

    def arguments(self, method, weights=WEIGHTS, names=("a", "b"), **options):
        """Arguments of merganser.merge."""
        arguments = {
            "base": self.models["base"],
            "models": [self.models[name] for name in names],
            "method": method,
            "weights": weights,
        }
        if method in WITH_FISHERS:
            arguments["fishers"] = [self.fishers[name] for name in names]
        if method in WITH_BASE_FISHER:
            arguments["base_fisher"] = self.fishers["base"]
        if method in GRAMS:
            arguments["grams"] = [self.grams[name] for name in names]
        if method in GRAMS[1:]:
            arguments["base_gram"] = self.grams["base"]
        return arguments | options

    def merge(self, method, *others, **options):
        return merganser.merge(**self.arguments(method, *others, **options))


def assert_equal_bits(merged, folder):
    written = load_file(folder / "model.safetensors")
    assert set(merged) == set(written)
    for name, tensor in written.items():
        assert merged[name].dtype == tensor.dtype
        same = merged[name].view(torch.uint8), tensor.view(torch.uint8)
        assert torch.equal(*same), name
