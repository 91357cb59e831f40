r"""Writes merges.safetensors: what mergekit 0.1.5 makes of RECIPES, in float32.

    benchmarks/peers/setup mergekit
    PYTHONPATH=tests/python/support \
        build/peers/mergekit/bin/python tests/golden/make_merges.py

Its random masks are taken from the numbers that Merganser draws (merge_oracle.draw),
so that dare and della can be compared.
"""

import tempfile
from pathlib import Path

import merge_oracle
import torch
import yaml
from mergekit import sparsify
from mergekit.config import MergeConfiguration
from mergekit.merge import run_merge
from mergekit.merge_methods.generalized_task_arithmetic import (
    GeneralizedTaskArithmeticMerge,
)
from mergekit.options import MergeOptions
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertForSequenceClassification

CONFIG = dict(
    vocab_size=19,
    hidden_size=16,
    num_hidden_layers=3,
    num_attention_heads=2,
    intermediate_size=12,
    max_position_embeddings=8,
)
# The shapes of mergekit's own examples, with other models.
RECIPES = {
    "linear": """
models:
  - {model: a, parameters: {weight: 1.0}}
  - {model: b, parameters: {weight: 0.3}}
  - {model: c, parameters: {weight: [0.5, 1.5]}}
merge_method: linear
""",
    "task_arithmetic": """
base_model: base
models:
  - {model: a, parameters: {weight: 0.7}}
  - {model: b, parameters: {weight: 0.6}}
merge_method: task_arithmetic
parameters: {normalize: true, lambda: 1.2}
""",
    "ties": """
models:
  - model: a
    parameters:
      density: [1, 0.7, 0.1]
      weight: 1.0
  - model: b
    parameters:
      density: 0.5
      weight: [0, 0.3, 0.7, 1]
  - model: c
    parameters:
      density: 0.33
      weight:
        - {filter: intermediate, value: 0.5}
        - value: 0.1
merge_method: ties
base_model: base
parameters: {normalize: true, int8_mask: true}
""",
    "dare_ties": """
models: [{model: base}, {model: a}, {model: b}]
merge_method: dare_ties
base_model: base
parameters: {weight: 0.5, density: 0.6}
""",
    "dare_linear": """
models: [{model: a}, {model: b}]
merge_method: dare_linear
base_model: base
parameters: {weight: 0.5, density: 0.6, rescale: true}
""",
    "breadcrumbs": """
models: [{model: a}, {model: b}]
merge_method: breadcrumbs
base_model: base
parameters: {weight: 0.8, density: 0.7, gamma: 0.05}
""",
    "breadcrumbs_ties": """
models: [{model: a}, {model: b}, {model: c}]
merge_method: breadcrumbs_ties
base_model: base
parameters: {weight: 0.5, density: 0.5, gamma: 0.1}
""",
    "della": """
models: [{model: a}, {model: b}]
merge_method: della
base_model: base
parameters: {weight: 0.5, density: 0.6, epsilon: 0.2}
""",
    "slerp": """
slices:
  - sources:
      - {model: base, layer_range: [0, 3]}
      - {model: a, layer_range: [0, 3]}
merge_method: slerp
base_model: base
parameters:
  t:
    - {filter: attention, value: [0, 0.5, 0.3, 0.7, 1]}
    - {filter: intermediate, value: [1, 0.5, 0.7, 0.3, 0]}
    - value: 0.5
""",
    "model_stock": """
models: [{model: a}, {model: b}, {model: c}]
merge_method: model_stock
base_model: base
""",
    "passthrough": """
slices:
  - sources: [{model: a, layer_range: [0, 2]}]
  - sources: [{model: b, layer_range: [1, 3]}]
merge_method: passthrough
""",
}


def make_models(folder):
    """base, and a, b and c around it."""
    torch.manual_seed(0)
    config = BertConfig(**CONFIG, num_labels=2)
    config.architectures = ["BertForSequenceClassification"]
    base = BertForSequenceClassification(config).state_dict()
    base = {name: 0.2 * torch.randn_like(x) for name, x in base.items()}
    states = {"base": base}
    for name in "abc":
        states[name] = {k: x + 0.05 * torch.randn_like(x) for k, x in base.items()}
    for name, state in states.items():
        (folder / name).mkdir()
        config.save_pretrained(folder / name)
        save_file(state, folder / name / "model.safetensors", {"format": "pt"})
    return states


def draw_as_merganser():
    """In place of torch.bernoulli in mergekit's sparsification."""
    merge_group = GeneralizedTaskArithmeticMerge.merge_group
    context = {}

    def merge_named_group(self, group, /, **parameters):
        context.update(name=group.metadata.name, model=0)
        return merge_group(self, group, **parameters)

    def bernoulli(probabilities):
        numbers = merge_oracle.draw(
            context["name"], context["model"], probabilities.numel(), seed=0
        )
        context["model"] += 1
        drawn = torch.from_numpy(numbers).view_as(probabilities)
        return (drawn < probabilities).to(probabilities.dtype)

    GeneralizedTaskArithmeticMerge.merge_group = merge_named_group
    sparsify.torch = _With(torch, bernoulli=bernoulli)


class _With:
    """A module with some of its names replaced."""

    def __init__(self, module, **replaced):
        self._module = module
        self.__dict__.update(replaced)

    def __getattr__(self, name):
        return getattr(self._module, name)


def main():
    draw_as_merganser()
    stored = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for model, state in make_models(folder).items():
            stored |= {f"inputs/{model}/{name}": x for name, x in state.items()}
        for recipe, text in RECIPES.items():
            config = yaml.safe_load(text)
            if "base_model" in config:
                config["base_model"] = str(folder / config["base_model"])
            for source in config.get("models", []) + [
                source
                for part in config.get("slices", [])
                for source in part["sources"]
            ]:
                source["model"] = str(folder / source["model"])
            out = folder / "out" / recipe
            run_merge(
                MergeConfiguration.model_validate(config),
                str(out),
                MergeOptions(quiet=True, copy_tokenizer=False),
            )
            merged = {}
            for shard in out.glob("*.safetensors"):
                merged |= load_file(shard)
            stored |= {f"{recipe}/{name}": x for name, x in merged.items()}
    save_file(
        {name: x.contiguous().clone() for name, x in stored.items()},
        Path(__file__).parent / "merges.safetensors",
        {f"recipe/{name}": text for name, text in RECIPES.items()},
    )


if __name__ == "__main__":
    main()
