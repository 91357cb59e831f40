"""The copies of the parameters that the documents state, from peak memory."""

import os
import shutil
import subprocess
import sys

import command
import pytest
import tiny_models
import torch
import training_inputs

pytestmark = pytest.mark.slow

# Layers of a model: no tensor is a large part of its parameters.
SIZES = (8, 32)
WIDTH = {
    "hidden_size": 256,  # much larger than the activations of a few tokens
    "intermediate_size": 1024,
    "max_position_embeddings": 128,
}
EXPERTS = ("one", "two")
T = len(EXPERTS)


def make(directory, layers):
    """A base, two experts, their data and the base's Fisher."""
    training_inputs.make_bert(directory / "base")
    model = tiny_models.bert(num_hidden_layers=layers, **WIDTH)
    for seed, name in enumerate(("base", *EXPERTS)):
        with torch.no_grad():
            model.classifier.bias[0] += seed
        model.save_pretrained(directory / name)
        for file in ("vocab.txt", "tokenizer_config.json"):
            (directory / name / file).write_bytes(
                (directory / "base" / file).read_bytes()
            )
        training_inputs.make_data(directory / f"{name}.jsonl", 10, seed)
    arguments = (
        "--model",
        directory / "base",
        "--data",
        directory / "base.jsonl",
        "-q",
    )
    command.run("fisher", *arguments, "--out", directory / "base.safetensors")
    return 4 * model.num_parameters()


@pytest.fixture(scope="module")
def directories(tmp_path_factory):
    """(directory, bytes of the parameters in float32) of a small and a large model."""
    made = [tmp_path_factory.mktemp("memory") for _ in SIZES]
    return [(f, make(f, n)) for f, n in zip(made, SIZES, strict=True)]


# A small process, since a child begins with the peak of the one that starts it.
MEASURE = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True, stdout=sys.stderr)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


def peak(arguments):
    """Bytes of a process's largest resident memory."""
    # Returns freed memory to the system at once.
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "MALLOC_MMAP_THRESHOLD_": "16384",
    }
    done = subprocess.run(
        [sys.executable, "-I", "-c", MEASURE, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    return 1024 * int(done.stdout)


def copies(directories, arguments_of):
    """Additional peak memory of the larger model, in its parameters' bytes."""
    (small, small_bytes), (large, large_bytes) = directories
    more = peak(arguments_of(large)) - peak(arguments_of(small))
    return more / (large_bytes - small_bytes)


def experts(directory):
    for name in EXPERTS:
        yield from ("--expert", directory / name, "--data", directory / f"{name}.jsonl")


def mismatch(directory):
    """The base is also both experts, as its Fisher is known."""
    base, fisher = directory / "base", directory / "base.safetensors"
    yield from (command.executable(), "mismatch", "--base", base, "-q")
    yield from ("--base-fisher", fisher, "--batch-size", 1)
    for _ in EXPERTS:
        yield from ("--expert", base, "--data", directory / "base.jsonl")
        yield from ("--fisher", fisher)
    yield from ("--model", directory / "one", "--target", directory / "two")


def subspace(directory):
    yield from (command.executable(), "subspace", "--base", directory / "base", "-q")
    yield from ("--base-data", directory / "base.jsonl", *experts(directory))
    yield from ("--out", directory / "subspace.safetensors", "--batch-size", 1)


def refine(directory):
    out = directory / "refined"
    shutil.rmtree(out, ignore_errors=True)
    yield from (command.executable(), "refine", "--base", directory / "base", "-q")
    yield from ("--base-fisher", directory / "base.safetensors", *experts(directory))
    yield from ("--model", directory / "one", "--out", out, "--steps", 2)
    yield from ("--batch-size", 1, "--solver", "subspace")


@pytest.mark.parametrize(
    "arguments, stated", [(mismatch, T + 8), (subspace, T + 6), (refine, T + 8)]
)
def test_of_a_command(directories, arguments, stated):
    """One more while a model is read."""
    found = copies(directories, arguments)
    assert stated - 1 < found < stated + 1.8


SCRIPT = """
import sys
import merganser, torch
from transformers import AutoModelForSequenceClassification
directory, call = sys.argv[1:]
load = AutoModelForSequenceClassification.from_pretrained
model, one, two = (load(f"{directory}/{name}") for name in ("base", "one", "two"))
ids = torch.tensor([[2], [3], [4], [5]])  # one more than classes, to hold out
batch = {"input_ids": ids, "labels": torch.tensor([0, 1, 2, 0])}
data = [[batch], [batch]]
fisher = f"{directory}/base.safetensors"
if call == "mismatch":
    merganser.mismatch(model, [one, two], data, [one], base_fisher=fisher)
elif call == "subspace_fisher":
    merganser.subspace_fisher(model, [one, two], data, [batch])
else:
    options = dict(base_fisher=fisher, steps=1, solver=call, refresh=call == "newton")
    merganser.refine(one, model, [one, two], data, **options)
"""


STATED = {
    "mismatch": T + 5,
    "subspace_fisher": T + 3,
    "subspace": T + 6,
    "adamw": 7,
    "newton": 11,
}


@pytest.mark.parametrize("call", STATED)
def test_of_a_python_function(directories, call):
    """Other than the three models that the script loads."""
    found = copies(
        directories, lambda directory: (sys.executable, "-c", SCRIPT, directory, call)
    )
    assert STATED[call] - 0.8 < found - 3 < STATED[call] + 0.8
