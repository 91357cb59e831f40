"""merganser fisher --from-checkpoint: what it prints, and what it refuses, with one
line, exit code 2, nothing executed and nothing written."""

import json
import subprocess
import sys
import warnings

import hf_training
import optimizer_files
import pytest
import torch
from merganser._checkpoint.__main__ import main
from optimizer_files import Code, make_state, truncate


def without_state(run):
    hf_training.bert().save_pretrained(run)


def of_another_model(run):
    optimizer_files.write_fsdp(run, make_state())
    hf_training.bert().save_pretrained(run)


def of_another_batch_size(run):
    """Resumed after 20 steps of 8 examples with steps of 16."""
    optimizer_files.write_fsdp(run, make_state())
    log = [{"step": s, "epoch": (8 * s + 8 * max(0, s - 20)) / 320} for s in (20, 40)]
    state = {"global_step": 40, "epoch": log[-1]["epoch"], "log_history": log}
    (run / "trainer_state.json").write_text(json.dumps(state))


def with_half_moments(run):
    state = make_state()
    for values in state.values():
        values["exp_avg_sq"] = values["exp_avg_sq"].bfloat16()
    optimizer_files.write_fsdp(run, state)


def with_half_a_shard(run):
    optimizer_files.write_zero(run, make_state(), 3)
    truncate(next((run / "global_step40").glob("*optim_states.pt")))


def with_code(run):
    state = {"state": make_state(), "more": Code(run / "executed")}
    torch.save(state, run / "optimizer.bin")


REFUSED = {
    "no optimizer state, as after save_only_model": without_state,
    "lacks the parameter 'bias': the state is of another model": of_another_model,
    "the run was resumed with another batch size": of_another_batch_size,
    "the moving averages are torch.bfloat16": with_half_moments,
    "damaged or incomplete": with_half_a_shard,
    "expected tensors, numbers and texts": with_code,
}


@pytest.mark.parametrize("message", REFUSED)
def test_refused_by_the_command(message, tmp_path, monkeypatch, capfd):
    """One line on stderr, exit code 2, and the directory as before."""
    (tmp_path / "run").mkdir()
    REFUSED[message](tmp_path / "run")
    before = sorted(tmp_path.rglob("*"))
    capfd.readouterr()
    out = tmp_path / "f.safetensors"
    arguments = ["--from-checkpoint", tmp_path / "run", "--out", out]
    numbers = ["--num-examples", 320, "--batch-size", 8, "--max-grad-norm", 0]
    monkeypatch.setattr(sys, "argv", ["", *map(str, arguments + numbers)])
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    assert main() == 2
    out, err = capfd.readouterr()
    assert out == "" and err.startswith("merganser: ") and err.count("\n") == 1
    assert message in err
    assert sorted(tmp_path.rglob("*")) == before


def call(*arguments):
    command = [sys.executable, "-m", "merganser._checkpoint", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_command(tmp_path):
    optimizer_files.write_fsdp(tmp_path, make_state())
    out = tmp_path / "out.safetensors"
    source = ["--from-checkpoint", tmp_path, "--out", out, "--num-examples", 320]
    done = call(*source, "--batch-size", 8)
    assert done.returncode == 2 and not out.exists()
    assert done.stderr.startswith("merganser: expected --max-grad-norm")
    assert done.stderr.count("\n") == 1
    done = call(*source, "--batch-size", 8, "--max-grad-norm", 1)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    done = call(*source, "--batch-size", 8, "--max-grad-norm", 0)
    assert done.returncode == 0, done.stderr
    assert "adam_checkpoint Fisher of 3 tensors" in done.stdout
    done = call(*source, "--batch-size", 8, "--max-grad-norm", 0, "--json")
    assert '"estimator": "adam_checkpoint"' in done.stdout
