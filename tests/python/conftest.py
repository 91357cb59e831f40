"""Shared by all Python tests: helper modules, devices, skipping, random state."""

import gc
import os
import random
import sys
from pathlib import Path

import numpy
import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent / "support"))
torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))


def pytest_configure(config):
    config.addinivalue_line("markers", "cuda: needs a GPU and a CUDA build")
    config.addinivalue_line("markers", "two_gpus: also needs a second GPU")


def pytest_generate_tests(metafunc):
    """A test with an argument `device` runs on the CPU and on a GPU."""
    if "device" in metafunc.fixturenames:
        cuda = pytest.param("cuda", marks=pytest.mark.cuda)
        metafunc.parametrize("device", ["cpu", cuda])


def pytest_runtest_setup(item):
    """The only place that skips tests without a GPU. FAIL_WITHOUT_CUDA=1 turns a
    skip into a failure, so that a GPU machine cannot pass by testing nothing. Tests
    that need a second GPU are still skipped."""
    two_gpus = item.get_closest_marker("two_gpus")
    if not (two_gpus or item.get_closest_marker("cuda")):
        return
    import merganser

    if not torch.cuda.is_available():
        reason = "no GPU here"
    elif not merganser.has_cuda():
        reason = "merganser is a CPU build"
    elif two_gpus and torch.cuda.device_count() < 2:
        pytest.skip("one GPU here")
    else:
        return
    if os.environ.get("FAIL_WITHOUT_CUDA") == "1":
        pytest.fail(f"FAIL_WITHOUT_CUDA=1, and {reason}")
    pytest.skip(reason)


@pytest.fixture(autouse=True)
def random_state():
    """Starts every test from the same random state and restores the old one."""
    saved = random.getstate(), numpy.random.get_state()
    with torch.random.fork_rng():
        random.seed(0)
        numpy.random.seed(0)
        torch.manual_seed(0)
        yield
    random.setstate(saved[0])
    numpy.random.set_state(saved[1])


@pytest.fixture(scope="module")
def quick_collections():
    """Speeds up garbage collection at each start of a Trainer, which would visit all
    objects that transformers has imported."""
    gc.freeze()
    yield
    gc.unfreeze()
