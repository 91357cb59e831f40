"""A resumed run is bit-identical to an uninterrupted one."""

import subprocess
import sys

import merganser
import pytest
from repository import SUPPORT
from training_inputs import make_bert, make_data
from training_runs import run

KINDS = {
    "plain": {},
    "adam": {"fisher": "adam"},
    "online_mc": {"fisher": "online_mc", "accumulate": 2, "dropout": 0.1},
    "online_mc_eval": {
        "fisher": "online_mc_eval",
        "fisher_interval": 2,
        "dtype": "bfloat16",
    },
    "linearized": {"linearized": True, "dropout": 0.0},
}


@pytest.fixture
def folder(tmp_path):
    make_bert(tmp_path / "model")
    make_data(tmp_path / "train.jsonl", 30, seed=1)
    make_data(tmp_path / "dev.jsonl", 20, seed=2)
    return tmp_path


def stop_after(step):
    """A progress callback that raises when it is called for the `step`th time."""
    calls = []

    def progress(*call):
        calls.append(call)
        if len(calls) == step:
            raise StopAfter

    return progress


class StopAfter(Exception):
    pass


def assert_same_files(a, b):
    names = sorted(path.name for path in a.iterdir())
    assert names == sorted(path.name for path in b.iterdir())
    for name in names:
        assert (a / name).read_bytes() == (b / name).read_bytes(), name


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_stopped_at_several_points(kind, folder):
    result, whole = run(folder, "whole", **KINDS[kind])
    # Each run counts its own calls: it stops after steps 1, 5 and 12, the
    # last of which leaves only an evaluation.
    for calls in (1, 4, 7):
        with pytest.raises(StopAfter):
            run(folder, "parts", stop_after(calls), **KINDS[kind])
        assert (folder / "parts.partial" / "state.safetensors").exists()
        assert not (folder / "parts").exists()
    again, parts = run(folder, "parts", **KINDS[kind])
    assert_same_files(whole, parts)
    assert not (folder / "parts.partial").exists()
    for key in ("steps", "examples", "epochs", "model_epoch"):
        assert again[key] == result[key]


KILLED = """
import os, signal, sys
from pathlib import Path
from training_runs import run

folder, step = Path(sys.argv[1]), int(sys.argv[2])
steps = 0

def progress(*call):
    global steps
    steps += 1
    if steps == step:
        os.kill(os.getpid(), signal.SIGKILL)

run(folder, "parts", progress, fisher="adam")
"""


@pytest.mark.slow
def test_killed_between_steps(folder):
    """SIGKILL: nothing is saved then, so the run resumes from the last checkpoint."""
    _, whole = run(folder, "whole", fisher="adam")
    # Killed at step 2 (restarts), at 8 (checkpoint 6), and 5 steps later at 11.
    for step in (2, 8, 5):
        done = subprocess.run(
            [sys.executable, "-c", KILLED, str(folder), str(step)],
            cwd=SUPPORT,
            check=False,
        )
        assert done.returncode == -9
        assert not (folder / "parts").exists()
    seen = []
    _, parts = run(folder, "parts", lambda *call: seen.append(call), fisher="adam")
    assert len(seen) == 3  # from step 9
    assert_same_files(whole, parts)


CHANGES = {
    "lr": {"lr": 1e-3},
    "seed": {"seed": 1},
    "epochs": {"epochs": 2},
    "batch-size": {"batch_size": 2},
    "dropout": {"dropout": 0.2},
    "dtype": {"dtype": "bfloat16"},
    "fisher": {"fisher": "adam"},
}


@pytest.mark.parametrize("option", CHANGES)
def test_another_option_is_refused_by_name(option, folder):
    with pytest.raises(StopAfter):
        run(folder, "out", stop_after(2))
    with pytest.raises(merganser.InputError, match=rf"begun with {option} = "):
        run(folder, "out", **CHANGES[option])
    run(folder, "out")


@pytest.mark.parametrize("what", ["train", "eval", "model", "companion"])
def test_other_inputs_are_refused_by_name(what, folder):
    with pytest.raises(StopAfter):
        run(folder, "out", stop_after(2))
    if what == "model":
        config = folder / "model" / "config.json"
        config.write_text(config.read_text().replace("1e-12", "1e-11"))
        what = "model's config.json and companions"
    elif what == "companion":
        (folder / "model" / "generation_config.json").write_text("{}")
        what = "model's config.json and companions"
    else:
        data = folder / {"train": "train.jsonl", "eval": "dev.jsonl"}[what]
        data.write_text(data.read_text().replace("w1", "w2"))
    with pytest.raises(merganser.InputError, match=f"begun with {what} = "):
        run(folder, "out")


def test_checkpoints_may_be_taken_at_other_steps(folder):
    _, whole = run(folder, "whole")
    with pytest.raises(StopAfter):
        run(folder, "parts", stop_after(5), checkpoint_steps=0)
    _, parts = run(folder, "parts", checkpoint_steps=2)
    assert_same_files(whole, parts)


def test_metrics_cut_short_are_refused(folder):
    with pytest.raises(StopAfter):
        run(folder, "out", stop_after(5))
    metrics = folder / "out.partial" / "metrics.jsonl"
    metrics.write_text(metrics.read_text()[:-20])
    with pytest.raises(merganser.InputError, match="metrics.jsonl"):
        run(folder, "out")


def test_damaged_checkpoint_is_refused(folder):
    with pytest.raises(StopAfter):
        run(folder, "out", stop_after(5))
    state = folder / "out.partial" / "state.safetensors"
    state.write_bytes(state.read_bytes()[:-100])
    with pytest.raises(merganser.InputError, match="state.safetensors"):
        run(folder, "out")
