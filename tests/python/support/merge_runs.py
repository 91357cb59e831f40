"""Merges of files by the executable, with recipes as dicts."""

import subprocess

import numpy
import yaml
from command import executable
from merge_inputs import load_model

WEIGHTS = {"a": 0.8, "b": 0.5}


def run(folder, recipe, *arguments, out):
    (folder / "r.yaml").write_text(yaml.safe_dump(recipe))
    process = subprocess.run(
        [executable(), "merge", "r.yaml", str(out), "--quiet", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    return load_model(out)


def models_of(names="ab", **parameters):
    return [
        {"model": name, "parameters": {"weight": WEIGHTS[name], **parameters}}
        for name in names
    ]


def assert_close(found, expected, scale=1.0):
    error = numpy.abs(found - expected).max()
    assert error <= 1e-6 * max(scale, numpy.abs(expected).max())
