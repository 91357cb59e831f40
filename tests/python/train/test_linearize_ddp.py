"""Linearized models in two processes of DDP."""

import linearize_worker
import pytest
import torch
from processes import run_ranks

pytestmark = pytest.mark.slow


def test_two_processes(tmp_path):
    """2 x 4 examples per step equal one process' 8."""
    run_ranks("linearize_worker.py", tmp_path)
    ranks = [torch.load(tmp_path / f"rank{rank}.pt") for rank in (0, 1)]
    for name in linearize_worker.MODELS:
        whole, start, _ = linearize_worker.train(tmp_path / "one", name)
        moved = torch.cat(
            [(p - q).flatten() for p, q in zip(whole, start, strict=True)]
        )
        assert moved.norm() > 0.01
        for found in ranks:
            for run in linearize_worker.RUNS:
                pairs = zip(found[name, run], whole, strict=True)
                away = torch.cat([(p - q).flatten() for p, q in pairs])
                assert away.norm() < 1e-4 * moved.norm()
