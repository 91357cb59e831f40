"""`merganser eval` in several processes of torchrun."""

import json
import os
import shutil
import subprocess
import sys
import time

import command
import pytest
from safetensors.torch import load_file, save_file
from training_inputs import make_bert, make_data
from transformers import AutoModelForSequenceClassification

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    make_bert(folder / "model")
    weights = load_file(make_bert(folder / "other") / "model.safetensors")
    weights["classifier.bias"] += 1
    save_file(weights, folder / "other" / "model.safetensors", {"format": "pt"})
    make_data(folder / "a.jsonl", 45, seed=1)
    make_data(folder / "b.tsv", 5, seed=2)
    data = ("--data", folder / "a.jsonl", "--out", folder / "fisher.safetensors")
    model = ("--model", folder / "model", "--max-length", 16)
    command.run("fisher", *model, *data)
    return folder


def arguments(folder, *more):
    files = (folder / "a.jsonl", folder / "b.tsv")
    return (
        *("eval", "--model", folder / "model", "--data", *files),
        *("--batch-size", 8, "--max-length", 16, "--json", *more),
    )


def torchrun(ranks, program, *more):
    torch = (sys.executable, "-m", "torch.distributed.run", "--standalone")
    return subprocess.run(
        [*torch, "--no-python", f"--nproc-per-node={ranks}", program]
        + [str(word) for word in more],
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize("ranks", [1, 2, 4])
@pytest.mark.parametrize("posterior", [False, True])
def test_the_same_bits_for_any_number(folder, ranks, posterior):
    fisher = ("--fisher", folder / "fisher.safetensors", "--delta", 1)
    words = arguments(folder, *(("--samples", 3, *fisher) if posterior else ()))
    done = torchrun(ranks, command.executable(), *words)
    assert done.returncode == 0, done.stderr
    expected = json.loads(command.run(*words).stdout)
    assert [row["examples"] for row in expected] == [45, 5]
    assert json.loads(done.stdout) == expected


def test_several_evaluations_of_a_job(folder, tmp_path):
    """Ranks are not ahead of rank 0 by a whole command."""
    program = tmp_path / "twice.sh"
    program.write_text(
        '#!/bin/sh\nset -e\n[ "$RANK" = 0 ] && sleep 2\n'
        f"for data in a.jsonl b.tsv; do {command.executable()} eval "
        f"--model {folder}/model --data {folder}/$data --max-length 16 -q; done\n"
    )
    program.chmod(0o755)
    done = torchrun(2, program)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split(", ")[-1] for line in lines] == ["45 examples", "5 examples"]


def test_more_classes_than_a_message_of_the_store_holds(folder, tmp_path):
    """8 MiB, of 30,000 probabilities for each of the first rank's texts."""
    model = AutoModelForSequenceClassification.from_pretrained(
        folder / "model", num_labels=30_000, ignore_mismatched_sizes=True
    )
    shutil.copytree(folder / "model", tmp_path / "model")
    model.save_pretrained(tmp_path / "model")
    data = make_data(tmp_path / "data.jsonl", 90, seed=3)
    files = ("--model", tmp_path / "model", "--data", data)
    words = ("eval", *files, "--max-length", 16, "--json")
    done = torchrun(2, command.executable(), *words)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == json.loads(command.run(*words).stdout)


def script(folder, text):
    """A program that does something else on rank 1 than eval."""
    path = folder / "rank.sh"
    path.write_text(f'#!/bin/sh\nif [ "$RANK" = 1 ]; then {text}; fi\nexec "$@"\n')
    path.chmod(0o755)
    return path


def test_a_rank_with_another_model(folder):
    words = arguments(folder)
    swapped = f'shift 4; set -- {command.executable()} eval --model {folder}/other "$@"'
    done = torchrun(2, script(folder, swapped), command.executable(), *words)
    assert done.returncode != 0
    assert "merganser: rank 1 has a model, data or options that differ" in done.stderr
    assert done.stdout == ""


def test_a_rank_that_dies(folder):
    died = folder / "died"
    dying = script(folder, f"touch {died}; kill -9 $$")
    done = torchrun(2, dying, command.executable(), *arguments(folder))
    assert time.time() - died.stat().st_mtime < 60
    assert done.returncode != 0 and done.stdout == ""
    assert "rank      : 1" in done.stderr and "Signal 9" in done.stderr


@pytest.mark.parametrize(
    "environment, words",
    [
        ({"WORLD_SIZE": "2", "RANK": "2"}, "expected RANK from 0 to 1"),
        ({"WORLD_SIZE": "two"}, "expected WORLD_SIZE from 1 to"),
        ({"WORLD_SIZE": "2", "RANK": "0"}, "expected MASTER_ADDR"),
        (
            {"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "localhost"},
            "expected MASTER_PORT from 1 to 65535",
        ),
    ],
)
def test_an_incomplete_environment(folder, environment, words):
    done = subprocess.run(
        [command.executable(), *map(str, arguments(folder))],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2 and words in done.stderr
    assert done.stdout == ""
