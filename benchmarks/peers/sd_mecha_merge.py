"""Merges a recipe of merganser (linear, task_arithmetic; as JSON) by sd-mecha:

    sd_mecha_merge.py RECIPE OUT

sd-mecha reads single files: of a sharded model each file is merged by itself.
"""

import json
import os
import sys
from pathlib import Path

import sd_mecha
import torch


def linear(base, models, weights):
    """The running mean: one pass over two tensors for each model but the first."""
    result, total = models[0], weights[0]
    for model, weight in zip(models[1:], weights[1:], strict=True):
        total += weight
        result = sd_mecha.weighted_sum(result, model, alpha=weight / total)
    return result


def task_arithmetic(base, models, weights):
    """From the base through the mean of the models: half as many passes as adding the
    differences one by one."""
    mean = linear(base, models, weights)
    return sd_mecha.weighted_sum(base, mean, alpha=sum(weights))


def main():
    recipe = json.loads(Path(sys.argv[1]).read_text())
    out = Path(sys.argv[2])
    folders = [Path(model["model"]) for model in recipe["models"]]
    weights = [model["parameters"]["weight"] for model in recipe["models"]]
    base = Path(recipe.get("base_model", folders[0]))
    config = json.loads((base / "config.json").read_text())
    method = {"linear": linear, "task_arithmetic": task_arithmetic}
    torch.set_num_threads(1)  # it has threads of its own
    out.mkdir()
    for path in base.glob("*.safetensors"):
        files = [sd_mecha.model(folder / path.name) for folder in folders]
        sd_mecha.merge(
            method[recipe["merge_method"]](sd_mecha.model(path), files, weights),
            output=out / path.name,
            output_dtype=getattr(torch, config["dtype"]),
            threads=len(os.sched_getaffinity(0)),
            # Faster with smaller buffers and no search for NaN and infinities.
            total_buffer_size=2**20,
            check_finite_output=False,
            omit_non_finite_inputs=False,
        )


main()
