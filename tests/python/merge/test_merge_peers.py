"""Unchanged mergekit recipes against mergekit's results.

The expected values are stored (tests/golden/make_merges.py writes them), as mergekit
needs a separate environment.
"""

import json
import subprocess

import numpy
import pytest
from command import executable
from merge_inputs import load_model
from repository import GOLDEN
from safetensors import safe_open
from safetensors.numpy import save_file

MERGES = GOLDEN / "merges.safetensors"


def read_golden():
    groups = {}
    with safe_open(MERGES, "numpy") as file:
        for key in file.keys():
            group, _, name = key.rpartition("/")
            groups.setdefault(group, {})[name] = file.get_tensor(key)
        recipes = {
            key.removeprefix("recipe/"): text
            for key, text in file.metadata().items()
            if key.startswith("recipe/")
        }
    return groups, recipes


GROUPS, RECIPES = read_golden()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    for model in ("base", "a", "b", "c"):
        (folder / model).mkdir()
        config = {"model_type": "bert", "num_hidden_layers": 3}
        (folder / model / "config.json").write_text(json.dumps(config))
        save_file(GROUPS[f"inputs/{model}"], folder / model / "model.safetensors")
    return folder


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_recipe(folder, name):
    (folder / f"{name}.yaml").write_text(RECIPES[name])
    out = f"out_{name}"
    subprocess.run(
        [executable(), "merge", f"{name}.yaml", out, "--quiet"], cwd=folder, check=True
    )
    found = load_model(folder / out)
    assert found.keys() == GROUPS[name].keys()
    for tensor, expected in GROUPS[name].items():
        error = numpy.abs(found[tensor] - expected).max()
        assert error <= 1e-6 * max(1, numpy.abs(expected).max()), tensor
