"""The copies of the parameters that the documents state, from peak memory."""

import os
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
    "hidden_size": 256,  # activations of a few tokens are few beside a layer
    "intermediate_size": 1024,
    "max_position_embeddings": 128,
}
EXPERTS = ("one", "two")
T = len(EXPERTS)


def make(folder, layers):
    """A base, two experts, their data and the base's Fisher."""
    training_inputs.make_bert(folder / "base")
    model = tiny_models.bert(num_hidden_layers=layers, **WIDTH)
    for seed, name in enumerate(("base", *EXPERTS)):
        with torch.no_grad():
            model.classifier.bias[0] += seed
        model.save_pretrained(folder / name)
        for file in ("vocab.txt", "tokenizer_config.json"):
            (folder / name / file).write_bytes((folder / "base" / file).read_bytes())
        training_inputs.make_data(folder / f"{name}.jsonl", 10, seed)
    arguments = ("--model", folder / "base", "--data", folder / "base.jsonl", "-q")
    command.run("fisher", *arguments, "--out", folder / "base.safetensors")
    return 4 * model.num_parameters()


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """(folder, bytes of the parameters in float32) of a small and a large model."""
    made = [tmp_path_factory.mktemp("memory") for _ in SIZES]
    return [(f, make(f, n)) for f, n in zip(made, SIZES, strict=True)]


def peak(arguments):
    """Bytes of a process's largest resident memory."""
    # What is freed goes back to the system at once.
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "MALLOC_MMAP_THRESHOLD_": "16384",
    }
    process = subprocess.Popen(
        [str(x) for x in arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=environment,
    )
    error = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = status
    assert status == 0, error.decode()
    return 1024 * usage.ru_maxrss


def copies(folders, arguments_of):
    """Additional peak memory of the larger model, in its parameters' bytes."""
    (small, small_bytes), (large, large_bytes) = folders
    more = peak(arguments_of(large)) - peak(arguments_of(small))
    return more / (large_bytes - small_bytes)


def experts(folder):
    for name in EXPERTS:
        yield from ("--expert", folder / name, "--data", folder / f"{name}.jsonl")


def mismatch(folder):
    yield from (command.executable(), "mismatch", "--base", folder / "base", "-q")
    yield from ("--base-fisher", folder / "base.safetensors", *experts(folder))
    yield from ("--model", folder / "one", "--model", folder / "two")
    yield from ("--batch-size", 1)


def subspace(folder):
    yield from (command.executable(), "subspace", "--base", folder / "base", "-q")
    yield from ("--base-data", folder / "base.jsonl", *experts(folder))
    yield from ("--out", folder / "subspace.safetensors", "--batch-size", 1)


@pytest.mark.parametrize("arguments, stated", [(mismatch, T + 7), (subspace, T + 6)])
def test_of_a_command(folders, arguments, stated):
    """One more while a model is read."""
    found = copies(folders, arguments)
    assert stated - 1 < found < stated + 1.1


SCRIPT = """
import sys
import merganser, torch
from transformers import AutoModelForSequenceClassification
folder, call = sys.argv[1:]
load = AutoModelForSequenceClassification.from_pretrained
model, one, two = (load(f"{folder}/{name}") for name in ("base", "one", "two"))
ids = torch.tensor([[2], [3], [4]])
batch = {"input_ids": ids, "labels": torch.tensor([0, 1, 2])}
data = [[batch], [batch]]
fisher = f"{folder}/base.safetensors"
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
def test_of_a_python_function(folders, call):
    """Other than the three models that the script loads."""
    found = copies(folders, lambda folder: (sys.executable, "-c", SCRIPT, folder, call))
    assert STATED[call] - 0.5 < found - 3 < STATED[call] + 0.5
