"""Failures of merganser merge: exit code, one sentence, and no files left behind."""

import json
import os
import re
import resource
import shutil
import signal
import struct
import subprocess
import time
from pathlib import Path

import numpy
import pytest
from command import executable
from merge_inputs import make_fisher, make_models, recipe
from safetensors.numpy import load_file, save_file


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    make_models(folder)
    return folder


@pytest.fixture
def models(originals, tmp_path):
    shutil.copytree(originals, tmp_path, dirs_exist_ok=True)
    return tmp_path


def everything(folder):
    return sorted(str(path) for path in folder.rglob("*"))


def start(folder, *arguments, stdout=subprocess.PIPE, **options):
    return subprocess.run(
        [executable(), *arguments],
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        cwd=folder,
        **options,
    )


def expect_failure(folder, code, words, *arguments):
    """Runs in `folder`, whose files must not change."""
    before = everything(folder)
    done = start(folder, *arguments)
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    assert re.fullmatch(r"merganser: [^\n]+\n", done.stderr), done.stderr
    for word in words:
        assert word in done.stderr
    assert everything(folder) == before


def change_config(folder, **values):
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def change_weights(folder, change):
    file = folder / "model.safetensors"
    tensors = {name: value.copy() for name, value in load_file(file).items()}
    change(tensors)
    save_file(tensors, file, {"format": "pt"})


def truncated(models):
    file = models / "a" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-10])


def hostile_header(models):
    file = models / "a" / "model.safetensors"
    file.write_bytes(struct.pack("<Q", 1 << 60) + b"{}")


def other_shape(models):
    def change(tensors):
        tensors["classifier.weight"] = tensors["classifier.weight"][:2].copy()

    change_weights(models / "b", change)
    make_fisher(models, "b")


def missing_tensor(models):
    change_weights(models / "b", lambda t: t.pop("bert.pooler.dense.bias"))
    make_fisher(models, "b")


def other_vocabulary(models):
    file = models / "b" / "tokenizer.json"
    file.write_text(file.read_text().replace("word7", "other"))


def other_sentencepiece(models):
    for name in ("base", "b"):
        (models / name / "spiece.model").write_text(f"of {name}")


def not_a_number(models):
    def change(tensors):
        tensors["bert.pooler.dense.weight"][2, 3] = numpy.nan

    change_weights(models / "a", change)
    make_fisher(models, "a")


def negative_fisher(models):
    def change(tensors):
        tensors["bert.pooler.dense.weight"][1, 0] = -1e-9

    make_fisher(models, "b", change)


BAD_MODELS = {
    "missing model": (
        lambda models: shutil.rmtree(models / "a"),
        ["a: is not a directory"],
    ),
    "no config": (
        lambda models: (models / "a" / "config.json").unlink(),
        ["a: has no config.json"],
    ),
    "truncated": (truncated, ["a/model.safetensors"]),
    "hostile header": (hostile_header, ["a/model.safetensors", "header"]),
    "other shape": (other_shape, ["b differs from base in shape", "classifier.weight"]),
    "missing tensor": (
        missing_tensor,
        ["b lacks tensors of base", "bert.pooler.dense.bias"],
    ),
    "other size": (
        lambda models: change_config(models / "a", hidden_size=32),
        ["a/config.json has hidden_size 32", "base/config.json"],
    ),
    "other vocabulary size": (
        lambda models: change_config(models / "a", vocab_size=44),
        ["a/config.json has vocab_size 44", "base/config.json"],
    ),
    "other vocabulary": (
        other_vocabulary,
        ["b/tokenizer.json and base/tokenizer.json"],
    ),
    "other sentencepiece vocabulary": (
        other_sentencepiece,
        ["spiece.model and ", "different vocabularies"],
    ),
    "fisher without a tensor": (
        lambda m: make_fisher(m, "a", lambda t: t.pop("classifier.bias")),
        ["a_fisher.safetensors has no Fisher for", "classifier.bias"],
    ),
    "fisher of other weights": (
        lambda m: change_weights(m / "a", lambda t: t["classifier.bias"].fill(0.5)),
        ["a_fisher.safetensors was estimated on other weights than a"],
    ),
    "not a number": (
        not_a_number,
        ["a/model.safetensors", "bert.pooler.dense.weight", "nan", "index 35"],
    ),
    "negative fisher": (
        negative_fisher,
        ["b_fisher.safetensors", "bert.pooler.dense.weight", "index 16"],
    ),
}


@pytest.mark.parametrize("name", BAD_MODELS)
def test_bad_models(models, name):
    spoil, words = BAD_MODELS[name]
    spoil(models)
    (models / "r.yaml").write_text(recipe("gradient_matching"))
    expect_failure(models, 2, words, "merge", "r.yaml", "out")


def test_all_problems_are_listed(models):
    change_config(models / "a", vocab_size=44)
    missing_tensor(models)
    (models / "r.yaml").write_text(recipe("gradient_matching"))
    done = start(models, "plan", "r.yaml")
    assert done.returncode == 2
    assert "2 problems" in done.stderr
    assert "vocab_size" in done.stderr and "bert.pooler.dense.bias" in done.stderr


BAD_RECIPES = {
    "unknown key": ({"model": []}, ["r.yaml:", "unknown key 'model'"]),
    "wrong type": ({"heads": [1]}, ["r.yaml:", "heads must be a string, not a list"]),
}


@pytest.mark.parametrize("name", BAD_RECIPES)
def test_bad_recipes(models, name):
    more, words = BAD_RECIPES[name]
    (models / "r.yaml").write_text(recipe("linear", **more))
    expect_failure(models, 2, words, "merge", "r.yaml", "out")
    expect_failure(models, 2, words, "plan", "r.yaml")


@pytest.mark.parametrize("option", ["--memory", "--shard-size"])
@pytest.mark.parametrize(
    "size",
    ["0", "0GB", "-5", "5B", "5 b", "5XB", "0.5GB", "1e9", "x", "abc", "b"]
    + ["99999999999999999999", "99999999999GB"],
)
def test_sizes_are_bytes_above_0(models, option, size):
    """In mergekit, "--out-shard-size 5B" counts parameters."""
    (models / "r.yaml").write_text(recipe("linear"))
    expected = "expected a whole number of bytes from 1 to 2^64 - 1, such as"
    hint = "(in mergekit B counts parameters; here, give bytes)"
    end = hint if option == "--shard-size" and size in ("5B", "5 b") else "(see"
    words = [f"{option}: {expected} ", f"got '{size}' {end}"]
    expect_failure(models, 2, words, "merge", "r.yaml", "out", f"{option}={size}")


@pytest.mark.slow
def test_bad_arguments(models):
    (models / "r.yaml").write_text(recipe("linear"))
    expect_failure(models, 2, ["no command given"])
    expect_failure(models, 2, ["unknown command 'mrege'; available: train"], "mrege")
    expect_failure(models, 2, ["OUT is required", "merge --help"], "merge", "r.yaml")
    expect_failure(models, 2, ["--thread"], "merge", "r.yaml", "out", "--thread", "2")
    expect_failure(models, 2, ["threads"], "merge", "r.yaml", "out", "--threads", "x")
    expect_failure(models, 2, ["memory"], "merge", "r.yaml", "out", "--memory", "-5")
    expect_failure(models, 2, ["memory"], "plan", "r.yaml", "--memory", "-5")
    for given, words in [
        ("--threads x", "--threads: expected a whole number from 0 to 1024, got 'x'"),
        ("--threads -1", "--threads: expected a whole number from 0 to 1024, got '-1'"),
        ("--shard-size", "merganser: --shard-size: expected a value (see"),
        ("extra", "merganser: unexpected argument 'extra' (see"),
        ("--no x", "merganser: unexpected arguments '--no', 'x' (see"),
    ]:
        expect_failure(models, 2, [words], "merge", "r.yaml", "out", *given.split())
    for given, words in [
        ("--lr x", "merganser: --lr: expected a number, got 'x' (see"),
        ("--max-steps x", "--max-steps: expected a whole number, got 'x' (see"),
        ("--seed -1", "--seed: expected a whole number of at least 0, got '-1'"),
    ]:
        expect_failure(models, 2, [words], "train", *given.split())
    expect_failure(models, 2, ["none.yaml"], "merge", "none.yaml", "out")
    expect_failure(models, 2, ["base: exists"], "merge", "r.yaml", "base")
    expect_failure(models, 2, ["output directory is empty"], "merge", "r.yaml", "")
    expect_failure(models, 2, ["r.yaml"], "inspect", "r.yaml")


def test_full_disk(models):
    """Simulates a full disk by a limit on file sizes."""
    (models / "r.yaml").write_text(recipe("gradient_matching"))
    before = everything(models)
    done = start(
        models,
        "merge",
        "r.yaml",
        "out",
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000)),
    )
    assert done.returncode == 1
    assert re.fullmatch(r"merganser: [^\n]*model.safetensors[^\n]+\n", done.stderr)
    assert everything(models) == before


def test_output_that_cannot_be_written(models):
    (models / "r.yaml").write_text(recipe("linear"))
    with open("/dev/full", "w") as full:
        done = start(models, "plan", "r.yaml", stdout=full)
    assert done.returncode == 1
    assert done.stderr.startswith("merganser: cannot write to standard output")


def write_zeros(file, numel):
    """Writes a tensor of zeros as a sparse file."""
    header = json.dumps(
        {"w": {"dtype": "F32", "shape": [numel], "data_offsets": [0, 4 * numel]}}
    ).encode()
    with open(file, "wb") as out:
        out.write(struct.pack("<Q", len(header)) + header)
        out.truncate(8 + len(header) + 4 * numel)


def large_recipe(folder, numel):
    for name in ("base", "a", "b"):
        (folder / name).mkdir()
        (folder / name / "config.json").write_text("{}")
        write_zeros(folder / name / "model.safetensors", numel)
    (folder / "r.yaml").write_text(recipe("task_arithmetic"))


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals(tmp_path, number):
    large_recipe(tmp_path, 100_000_000)
    before = everything(tmp_path)
    process = subprocess.Popen(
        [executable(), "merge", "r.yaml", "out"],
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
    )
    while everything(tmp_path) == before:
        time.sleep(0.001)
        assert process.poll() is None
    process.send_signal(number)
    message = process.communicate(timeout=60)[1]
    assert process.returncode == 1
    assert "--resume" in message.splitlines()[-1]
    left = {path for path in everything(tmp_path) if path not in before}
    assert {Path(p).relative_to(tmp_path).parts[0] for p in left} == {"out.merging"}


def test_too_little_space(tmp_path):
    free = os.statvfs(tmp_path)
    numel = free.f_bavail * free.f_frsize // 4 + 1_000_000
    try:
        large_recipe(tmp_path, numel)
    except OSError:
        pytest.skip("the file system takes no sparse file of this size")
    expect_failure(tmp_path, 1, ["out needs", "free"], "merge", "r.yaml", "out")
