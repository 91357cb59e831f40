"""Examples split over processes: the same results as in one process."""

import re
import subprocess
import sys
import time

import merganser
import pytest
import ranks_cases
import torch
from processes import run_ranks
from ranks_cases import plain, vectors
from repository import SUPPORT

WORKER = "ranks_worker.py"


@pytest.fixture(scope="module")
def expected():
    cases = ranks_cases.found(None)
    cases["resumed"] = cases_mc()
    return cases


def cases_mc():
    return ranks_cases.diagonal(merganser.fisher(plain(), vectors(), "mc"))


def assert_equal(found, expected):
    assert found.keys() == expected.keys()
    for case, (tensors, numbers) in expected.items():
        assert found[case][1] == numbers, case
        assert found[case][0].keys() == tensors.keys(), case
        for name, x in tensors.items():
            limit = 1e-12 if x.dtype == torch.float64 else 1e-6
            away = (found[case][0][name] - x).norm()
            assert away <= limit * x.norm(), f"{case}: {name}"


@pytest.mark.slow
def test_one_rank(one, expected, tmp_path):
    found = ranks_cases.found(one)
    assert_equal(found | {"resumed": expected["resumed"]}, expected)


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 4])
def test_ranks(count, expected, tmp_path):
    run_ranks(WORKER, tmp_path, "values", count=count)
    ranks = [torch.load(tmp_path / f"rank{rank}.pt") for rank in range(count)]
    for found in ranks:
        assert_equal(found, expected)
    files = sorted(path.name for path in tmp_path.glob("sums*"))
    assert files == [f"sums.pt.{rank}-of-{count}" for rank in range(count)]


REFUSED = {
    "sampler": "DistributedSampler.*omit the sampler",
    "shuffled": "differs from rank 0 in the first batch of data: pass the same",
    "other value": "differs from rank 0 in the examples in data:",
    "fewer": r"in the number of examples in data \(14, expected 19\)",
    "seed": r"in seed \(1, expected 0\)",
    "limit": r"in limit \(6, expected 5\)",
    "weights": "in the model's parameters:",
    "frozen": "in the trainable parameters:",
    "gram": "in the examples in data:",
    "subspace": "in the task vectors:",
}
"""Cases of the worker in which all ranks raise the same InputError."""


@pytest.mark.slow
def test_what_ranks_do_not_share(tmp_path):
    run_ranks(WORKER, tmp_path, "refused")
    ranks = [torch.load(tmp_path / f"rank{rank}.pt") for rank in (0, 1)]
    for case, message in REFUSED.items():
        for found in ranks:
            kind, text = found[case]
            assert kind == "InputError", case
            assert re.search(message, text), text
    assert ranks[1]["raises"] == ("ValueError", "the disk is gone")
    text = "rank 1 of process_group failed: ValueError: the disk is gone"
    assert ranks[0]["raises"] == ("Error", text)
    assert ranks[1]["empty"] == ("InputError", "data has no examples")
    text = "rank 1 of process_group failed: InputError: data has no examples"
    assert ranks[0]["empty"] == ("Error", text)


@pytest.mark.slow
def test_a_rank_that_dies(tmp_path):
    outputs = run_ranks(WORKER, tmp_path, "dying", codes=[1, 7])
    assert "rank 0 of process_group lost another rank, which ended" in outputs[0]


@pytest.mark.slow
def test_a_rank_that_dies_under_torchrun(tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    done = subprocess.run(
        [*command, "--nproc-per-node=2", SUPPORT / WORKER, tmp_path, "dying"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode != 0
    assert "exitcode  : 7" in done.stderr and "rank      : 1" in done.stderr
    assert time.time() - (tmp_path / "died").stat().st_mtime < 60


def test_a_plain_call_in_a_process_group(one):
    """Without process_group nothing is shared."""
    found = merganser.fisher(plain(), vectors(), "mc")
    expected = cases_mc()
    assert all(torch.equal(found[n], f) for n, f in expected[0].items())


@pytest.mark.parametrize("group", ["world", 1])
def test_no_process_group(group):
    with pytest.raises(merganser.InputError, match="process_group must be a group"):
        merganser.fisher(plain(), vectors(), process_group=group)
