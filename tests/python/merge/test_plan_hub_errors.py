"""Errors of plans with models of the Hub that are not downloaded, and what such plans
cannot know."""

import json
import shutil
import struct
import subprocess

import command
import hub
import merganser
import numpy
import pytest
from hub_models import (
    NAMES,
    NOWHERE,
    header_bytes,
    plan_or_error,
    run,
    use_fishers,
    without_notes,
    write_recipe,
)
from safetensors.numpy import load_file, save_file

pytestmark = pytest.mark.slow


ERRORS = {
    "me/none": ["'me/none' is neither a directory nor a model on the Hub"],
    "me/a@v9": ["me/a: expected a branch, tag or commit on the Hub, got 'v9'"],
    "me/b": ["me/b: access to this model is restricted", "hf auth login"],
    "me/pickled": ["me/pickled: has no .safetensors file on the Hub"],
    "me/older": ["me/older: has its weights in the directory of a first module"],
}


@pytest.mark.parametrize("name", ERRORS)
def test_what_the_hub_lacks(name, case, connect, monkeypatch):
    write_recipe(case.away, a=name, b="me/a")
    repositories = case.repositories()
    repositories["me/pickled"] = {"config.json": b"{}", "pytorch_model.bin": b""}
    repositories["me/older"] = {"0_Transformer/model.safetensors": b""}
    monkeypatch.chdir(case.away)
    with hub.serve(repositories, gated=["me/b"]) as url:
        connect(url)
        message = plan_or_error()
    assert message.startswith("r.yaml:1:") and "\n" not in message
    assert all(part in message for part in ERRORS[name])


@pytest.mark.parametrize("offline", [False, True])
def test_no_connection(offline, case, connect, monkeypatch):
    monkeypatch.chdir(case.away)
    connect(NOWHERE, offline)
    lines = plan_or_error().splitlines()[1:]
    assert all(line.startswith("  r.yaml:1:") for line in lines) and len(lines) == 3
    reason = "unset HF_HUB_OFFLINE" if offline else f"the Hub at {NOWHERE} cannot be"
    assert all(reason in line for line in lines)


def test_an_error_on_the_command_line(case, tmp_path):
    write_recipe(case.away, b="me/a")
    with hub.serve(case.repositories(), gated=["me/a"]) as url:
        cache = tmp_path / "cache"
        done = run("plan", "r.yaml", "-q", cache=cache, url=url, cwd=case.away)
    assert done.returncode == 2 and done.stdout == ""
    heading, *lines = done.stderr.splitlines()
    assert heading.startswith("merganser: ") and len(lines) == 2
    assert all("me/a: access to this model is restricted" in line for line in lines)


def replace_length(file, length):
    data = file.read_bytes()
    file.write_bytes(struct.pack("<Q", length) + data[8:])


def cut(file, size):
    file.write_bytes(file.read_bytes()[:size])


BROKEN = {
    "empty": lambda file: cut(file, 0),
    "only a length": lambda file: cut(file, 8),
    "less than a length": lambda file: cut(file, 3),
    "a cut header": lambda file: cut(file, 1000),
    "a cut tensor": lambda file: cut(file, file.stat().st_size - 1),
    "bytes after the tensors": lambda file: file.write_bytes(file.read_bytes() + b"x"),
    "too long a header": lambda file: replace_length(file, 100_000_001),
    "a longer header": lambda file: replace_length(file, header_bytes(file) + 8),
    "no JSON": lambda file: file.write_bytes(
        file.read_bytes()[:8] + b"x" + file.read_bytes()[9:]
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_headers(name, case, connect, monkeypatch):
    BROKEN[name](case.local / "me/a/model.safetensors")
    local, found, received = case.plans(monkeypatch.chdir, connect)
    assert "me/a/model.safetensors: " in local
    assert found == local
    assert received["me/a/model.safetensors"] < 20_000


def integers(folder, values):
    file = folder / "model.safetensors"
    ids = load_file(folder / "model.safetensors")
    ids["bert.embeddings.position_ids"] = values
    save_file(ids, file, {"format": "pt"})


def test_what_only_values_show(case, connect, monkeypatch, tmp_path):
    """Integers that differ are found by the merge, and so is another base's hash."""
    for value, name in enumerate(NAMES):
        integers(case.local / name, numpy.full(3, value))
    content = {"merge_method": "linear", "models": [{"model": name} for name in NAMES]}
    case.write(json.dumps(content))
    local, found, _ = case.plans(monkeypatch.chdir, connect)
    assert "bert.embeddings.position_ids' I64, which is not merged" in local
    assert "which the merge checks" in found["notes"][0]
    with hub.serve(case.repositories()) as url:
        connect(url)
        monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "other"))
        with pytest.raises(merganser.InputError, match="position_ids' I64, which is"):
            merganser.merge_recipe("r.yaml", tmp_path / "out")


def test_fishers_of_other_weights(case, connect, monkeypatch, tmp_path):
    use_fishers(case)
    for to in (case.local, case.away):
        shutil.copy(to / "a_fisher.safetensors", to / "b_fisher.safetensors")
    local, found, _ = case.plans(monkeypatch.chdir, connect)
    assert "b_fisher.safetensors was estimated on other weights than me/b" in local
    note = (
        "b_fisher.safetensors is not checked against the weights of me/b: the model is "
        "not downloaded"
    )
    assert note in found["notes"]


def test_ties_by_their_names(case, connect, monkeypatch):
    """A copy under a name that architectures tie is taken for one; another is extra."""
    file = case.local / "me/a/model.safetensors"
    tensors = load_file(file)
    name = "bert.embeddings.word_embeddings.weight"
    tensors["cls.predictions.decoder.weight"] = tensors[name]
    save_file(tensors, file)
    local, found, _ = case.plans(monkeypatch.chdir, connect)
    assert without_notes(found) == without_notes(local)
    save_file(tensors | {"other.weight": tensors[name]}, file)
    _, found, _ = case.plans(monkeypatch.chdir, connect)
    assert "me/a has tensors that me/base lacks: 'other.weight'" in found


def test_a_subspace_needs_the_weights(case, connect, monkeypatch):
    import torch
    from transformers import AutoModelForSequenceClassification

    base = AutoModelForSequenceClassification.from_pretrained(case.local / "me/base")
    ids = torch.randint(5, 20, (8, 6))
    data = [{"input_ids": ids, "labels": torch.zeros(8, dtype=torch.long)}]
    experts = [str(case.local / name) for name in NAMES[1:]]
    subspace = merganser.subspace_fisher(base, experts, 2 * [data], data)
    for to in (case.local, case.away):
        subspace.save(to / "s.safetensors")
    content = json.loads((case.local / "r.yaml").read_text())
    content |= {"merge_method": "subspace_gradient_matching"}
    case.write(json.dumps(content | {"subspace": "s.safetensors"}))
    local, found, _ = case.plans(monkeypatch.chdir, connect)
    assert local["tensors"]
    assert found == (
        "r.yaml cannot be merged: s.safetensors: names its models by their hashes, "
        "which need the weights of me/base, me/a, me/b; download them first, with "
        "merganser download"
    )


def test_a_build_of_the_core_alone(tmp_path):
    """It has no Python package that could ask the Hub."""
    alone = shutil.copy(command.executable(), tmp_path / "merganser")
    (tmp_path / "r.yaml").write_text("merge_method: linear\nmodels: [{model: me/a}]\n")
    done = subprocess.run(
        [alone, "plan", tmp_path / "r.yaml"], capture_output=True, text=True
    )
    assert done.returncode == 2 and done.stdout == ""
    assert "download it with: merganser download me/a" in done.stderr
