"""Killed merges, and what can be said of a merge afterwards."""

import json
import random
import signal
import subprocess
import time

import pytest
import torch
from command import executable
from merge_inputs import make_models, recipe
from safetensors.torch import load_file, save_file

METHOD = "gradient_matching"


def merge(folder, *arguments, out="out"):
    return subprocess.run(
        [executable(), "merge", "r.yaml", out, "--quiet", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


def content(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_fifty_kills(tmp_path):
    """The same bytes, wherever the process was stopped and however often."""
    folder = enlarged(tmp_path)
    start = time.perf_counter()
    merge(folder, out="whole").check_returncode()
    whole = time.perf_counter() - start
    expected = content(folder / "whole")
    draw = random.Random(0)
    killed = finished = 0
    while killed < 50:
        process = subprocess.Popen(
            [executable(), "merge", "r.yaml", "out", "--quiet", "--resume"],
            cwd=folder,
        )
        try:
            process.wait(timeout=draw.uniform(0, 1.2 * whole))
            assert process.returncode == 0
            assert content(folder / "out") == expected
            assert not (folder / "out.merging").exists()
            finished += 1
            remove(folder / "out")
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            killed += 1
    merge(folder, "--resume").check_returncode()
    assert content(folder / "out") == expected
    assert finished > 0  # not only beginnings were killed


def test_verify_and_inspect(tmp_path):
    folder = enlarged(tmp_path)
    merge(folder).check_returncode()
    good = json.loads(run(folder, "verify", "out", "--json"))
    assert good["good"] and {row["state"] for row in good["inputs"]} == {"same"}
    found = json.loads(run(folder, "inspect", "out", "--json"))
    assert found["merged"]["content_hash"] == found["content_hash"]
    assert found["merged"]["recipe"] == (folder / "r.yaml").read_text()
    sources = json.loads(run(folder, "inspect", "a", "--json"))
    hashes = {row["path"]: row["content_hash"] for row in found["merged"]["inputs"]}
    assert hashes["a"] == sources["content_hash"]
    assert "merganser" in (folder / "out" / "README.md").read_text()

    weights = folder / "out" / "model.safetensors"
    state = load_file(weights)
    next(iter(state.values())).view(-1)[-1] += 1
    save_file(state, weights, {"format": "pt"})
    process = subprocess.run(
        [executable(), "verify", "out"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 1
    assert "model  changed" in process.stdout
    assert "out is not what was merged" in process.stderr


def test_changed_input(tmp_path):
    """What was left of other weights is not gone on from."""
    folder = enlarged(tmp_path)
    (folder / "out.merging" / "model").mkdir(parents=True)
    (folder / "out.merging" / "journal").write_text("merganser merge, 0, 0\n0 0 0\n")
    process = merge(folder, "--resume")
    assert process.returncode == 2
    assert "out.merging is of another merge" in process.stderr
    assert not (folder / "out").exists()
    merge(folder).check_returncode()


@pytest.mark.parametrize("memory", ["1MiB", "3000000", "1GiB"])
def test_memory_does_not_change_the_bytes(tmp_path, memory):
    folder = enlarged(tmp_path)
    merge(folder, out="whole").check_returncode()
    merge(folder, "--memory", memory, "--threads", "3").check_returncode()
    assert content(folder / "out") == content(folder / "whole")


def test_shard_size(tmp_path):
    folder = enlarged(tmp_path)
    merge(folder, out="whole").check_returncode()
    merge(folder, "--shard-size", "1MB").check_returncode()
    shards = sorted((folder / "out").glob("model-*-of-*.safetensors"))
    assert len(shards) > 2
    together = {}
    for shard in shards:
        together |= load_file(shard)
    whole = load_file(folder / "whole" / "model.safetensors")
    assert together.keys() == whole.keys()
    assert all(torch.equal(together[name], whole[name]) for name in whole)


def test_nonfinite(tmp_path):
    folder = enlarged(tmp_path)
    (folder / "r.yaml").write_text(recipe("linear"))
    weights = folder / "a" / "model.safetensors"
    state = load_file(weights)
    next(iter(state.values())).view(-1)[-1] = torch.nan
    save_file(state, weights, {"format": "pt"})
    assert merge(folder).returncode == 2
    merge(folder, "--allow-nonfinite").check_returncode()
    report = json.loads((folder / "out" / "merganser.json").read_text())
    assert report["nonfinite"] == 1


def run(folder, *arguments):
    return subprocess.check_output([executable(), *arguments], cwd=folder, text=True)


def remove(folder):
    for path in sorted(folder.rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    folder.rmdir()


def enlarged(folder):
    """Models and Fishers of several chunks per tensor, and a recipe."""
    make_models(folder, hidden_size=128, vocab_size=5000)
    (folder / "r.yaml").write_text(recipe(METHOD))
    return folder
