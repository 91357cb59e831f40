"""The file of a Fisher's partial sums: damaged, foreign, not writable, or from a
killed process."""

import random
import signal
import subprocess
import sys
import time

import merganser
import pytest
import torch
from fisher_checkpoints import (
    assert_identical,
    data_of,
    plain,
    recurrent,
    run,
    stopped,
)
from merganser._fisher import partial_sums
from repository import SUPPORT


@pytest.fixture(autouse=True)
def write_after_each_batch(monkeypatch):
    monkeypatch.setattr(partial_sums, "SECONDS", 0)


def damaged_files(whole):
    yield b""
    yield b"no checkpoint"
    yield whole[: len(whole) // 2]
    yield whole[:-1]
    generator = random.Random(4)
    for _ in range(12):
        place = generator.randrange(len(whole))
        yield whole[:place] + bytes([whole[place] ^ 255]) + whole[place + 1 :]


def test_damaged_file(tmp_path):
    """Damage is refused, except in unused bytes between parts of the file."""
    path = tmp_path / "sums.pt"
    data = data_of(plain())
    stopped(plain(), data, 2, path)
    whole = path.read_bytes()
    expected = run(plain(), data)
    refused = 0
    for content in damaged_files(whole):
        path.write_bytes(content)
        try:
            result = run(plain(), data, checkpoint=path)
        except merganser.InputError as error:
            assert "sums.pt is not a checkpoint" in str(error)
            assert "\n" not in str(error)
            refused += 1
        else:
            assert_identical(result, expected)
    assert refused > 4


def test_every_changed_sum_is_noticed(tmp_path):
    path = tmp_path / "sums.pt"
    data = data_of(plain())
    stopped(plain(), data, 2, path)
    whole = path.read_bytes()
    sums = torch.load(path, weights_only=True)["sums"]
    for value in sums.values():
        place = whole.find(value.numpy().tobytes())
        assert place > 0
        path.write_bytes(whole[:place] + b"\x00\x01" + whole[place + 2 :])
        with pytest.raises(merganser.InputError, match=r"sums\.pt is not a checkp"):
            run(plain(), data, checkpoint=path)


@pytest.mark.parametrize("content", [[], {"run": {}}, {"run": 1, "sums": 2}, "text"])
def test_other_files_of_torch(content, tmp_path):
    torch.save(content, tmp_path / "sums.pt")
    with pytest.raises(merganser.InputError, match=r"sums\.pt is"):
        run(plain(), data_of(plain()), checkpoint=tmp_path / "sums.pt")


def test_path_that_cannot_be_written(tmp_path):
    """Raises before the work, not after it."""
    (tmp_path / "file").touch()
    for path in (tmp_path / "absent" / "sums.pt", tmp_path / "file" / "sums.pt"):
        calls = []
        with pytest.raises(merganser.InputError, match=r"sums\.pt: cannot be written"):
            run(
                plain(),
                data_of(plain()),
                checkpoint=path,
                progress=lambda *state, calls=calls: calls.append(state),
            )
        assert not calls
    with pytest.raises(merganser.InputError, match=tmp_path.name):
        run(plain(), data_of(plain()), checkpoint=tmp_path)


KILLED = """
import sys, time
import merganser
import fisher_checkpoints as tests
from merganser._fisher import partial_sums

partial_sums.SECONDS = 0
model = tests.recurrent()
print("ready", flush=True)
merganser.fisher(model, tests.data_of(model) * 8, "mc", checkpoint=sys.argv[1])
"""


@pytest.mark.slow
def test_killed(tmp_path):
    """A complete file exists at any moment, or none."""
    path = tmp_path / "sums.pt"
    generator = random.Random(2)
    killed = 0
    for _ in range(3):
        worker = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", KILLED, str(path)],
            stdout=subprocess.PIPE,
            cwd=SUPPORT,
        )
        worker.stdout.readline()
        time.sleep(generator.uniform(0.02, 0.2))
        worker.send_signal(signal.SIGKILL)
        killed += worker.wait() == -signal.SIGKILL
        worker.stdout.close()
        if path.exists():
            torch.load(path, weights_only=True)
    assert killed
    model = recurrent()
    data = data_of(model) * 8
    result = run(model, data, "mc", checkpoint=path)
    assert_identical(result, run(model, data, "mc"))
