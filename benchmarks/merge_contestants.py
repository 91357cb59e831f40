"""Who merges, and how a run is measured."""

import json
import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from peers.workers import HERE, ROOT, Failed

WEIGHTS = {"expert1": 0.4, "expert2": 0.3, "expert3": 0.3, "expert4": 0.2}
METHODS = ("linear", "task_arithmetic", "gradient_matching")
THREADS = len(os.sched_getaffinity(0))
FLOOR_CHUNK = 512 * 1024  # bytes; the fastest of 16 KiB to 4 MiB, measured
# Its fastest settings: files of the size that the inputs have, written by a thread
# while the next one is computed. --low-cpu-memory is for accelerators and
# --lazy-unpickle for pickles, they change nothing here. There is no tokenizer to copy,
# and --quiet leaves out the progress.
MERGEKIT = [
    ROOT / "build/peers/mergekit/bin/mergekit-yaml",
    *("--num-threads", THREADS, "--async-write", "--out-shard-size", "1B"),
    *("--no-copy-tokenizer", "--quiet"),
]
SD_MECHA = [ROOT / "build/peers/sd_mecha/bin/python", HERE / "sd_mecha_merge.py"]


@dataclass
class Cell:
    """One merge; `folder` has base, expert1, ... and base_fisher.safetensors, ..."""

    model: str
    dtype: str
    method: str
    folder: Path

    def recipe(self):
        models = [
            {"model": str(self.folder / name), "parameters": {"weight": weight}}
            for name, weight in WEIGHTS.items()
        ]
        recipe = {"merge_method": self.method, "models": models}
        if self.method != "linear":
            recipe["base_model"] = str(self.folder / "base")
        if self.method == "gradient_matching":
            recipe["base_fisher"] = f"{recipe['base_model']}_fisher.safetensors"
            recipe["base_num_examples"] = 1000
            for model in models:
                model["fisher"] = f"{model['model']}_fisher.safetensors"
                model["num_examples"] = 100
        return recipe

    def inputs(self):
        """The files of tensors that the merge reads."""
        names = [*WEIGHTS, *(["base"] if self.method != "linear" else [])]
        files = [path for name in names for path in self.weights(name)]
        if self.method == "gradient_matching":
            files += self.folder.glob("*_fisher.safetensors")
        return files

    def weights(self, name):
        return (self.folder / name).glob("*.safetensors")

    def contestants(self, merganser):
        """Name -> the command that writes to a path that does not exist yet."""
        file = self.write_recipe()
        size = sum(path.stat().st_size for path in self.weights("expert1"))
        floor = [ROOT / "build/merge_floor", THREADS, FLOOR_CHUNK]
        files = self.inputs()
        commands = {
            "floor": lambda out: [*floor, out, size, *files],
            "merganser": lambda out: [
                *(merganser, "merge", file, out, "--threads", THREADS, "--quiet")
            ],
        }
        if self.method == "gradient_matching":
            return commands  # it is Merganser's own
        commands["mergekit"] = lambda out: [*MERGEKIT, file, out]
        if self.dtype != "float32":
            exact = self.write_recipe(dtype="float32", out_dtype=self.dtype)
            commands["mergekit, dtype: float32"] = lambda out: [*MERGEKIT, exact, out]
        commands["sd-mecha"] = lambda out: [*SD_MECHA, file, out]
        return commands

    def write_recipe(self, **more):
        """As JSON, which is also YAML."""
        file = self.folder / "-".join([self.method, *more, "recipe.yaml"])
        file.write_text(json.dumps(self.recipe() | more))
        return file


def run(command, stdout=subprocess.DEVNULL):
    """Seconds from start to end, and the peak of memory in bytes."""
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": str(THREADS),
        "HF_HUB_OFFLINE": "1",
    }
    with (
        tempfile.NamedTemporaryFile("r") as result,
        tempfile.TemporaryFile("w+") as errors,
    ):
        command = [ROOT / "build/run_measured", result.name, *command]
        done = subprocess.run(
            [str(word) for word in command],
            stdout=stdout,
            stderr=errors,
            env=environment,
            check=False,
        )
        if done.returncode != 0:
            errors.seek(0)
            raise Failed(_error_line(errors.read(), done.returncode))
        seconds, kib = result.read().split()
    return float(seconds), int(kib) * 1024


def _error_line(text, code):
    """The first line that names an error; of a traceback that is its last one."""
    lines = [line for line in text.splitlines() if line.strip()]
    named = [line for line in lines if re.match(r"[\w.]*(error|Exception)", line, re.I)]
    return (named + lines[-1:] + [f"exit code {code}"])[0]


def read_once(paths):
    """Into the page cache."""
    buffer = bytearray(1 << 24)
    for path in paths:
        with open(path, "rb", buffering=0) as file:
            while file.readinto(buffer):
                pass


def evict(paths):
    """Out of the page cache; what is not on the disk yet would stay there."""
    for path in paths:
        with open(path, "rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def remove(path):
    """Removes a file or directory and waits for the disk: the next contestant must not
    wait for that."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    os.sync()
