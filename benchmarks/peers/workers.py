"""The driver's side of worker.py: one process per contestant."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent


def log(text):
    print(text, file=sys.stderr, flush=True)


class Failed(Exception):
    """A contestant's own error, or the end of its process."""


class Worker:
    """A contestant in a process of its own, in the environment that it needs."""

    def __init__(self, name):
        self.name = name
        self._process = None

    def start(self, cell):
        """Makes the cell's model and examples ready, in a new process if need be."""
        if self._process is None:
            threads = len(os.sched_getaffinity(0))
            self._process = subprocess.Popen(
                [
                    python_of(self.name),
                    HERE / "worker.py",
                    self.name,
                    str(threads),
                    str(available_memory() * 9 // 10),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={**os.environ, "OMP_NUM_THREADS": str(threads)},
                text=True,
            )
        self._ask(cell=cell)

    def run(self, batches):
        """Seconds for that many batches."""
        return self._ask(run=batches)["seconds"]

    def end(self, path=None):
        """Ends the cell: its peak memory in bytes and how many values it gives."""
        return self._ask(end=path)

    def stop(self):
        if self._process is not None:
            self._process.stdin.close()
            self._process.wait()
            self._process = None

    def _ask(self, **order):
        try:
            print(json.dumps(order), file=self._process.stdin, flush=True)
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            code = self._process.wait()
            self._process = None
            raise Failed(f"the process ended with exit code {code}")
        answer = json.loads(line)
        if "error" in answer:
            self.stop()  # what it holds could make others fail
            raise Failed(answer["error"])
        return answer


def python_of(name):
    peer = name.removesuffix("-released")
    if not (HERE / f"{peer}.txt").exists():
        return sys.executable
    python = ROOT / "build" / "peers" / peer / "bin" / "python"
    if not python.exists():
        sys.exit(f"{python} is missing: run benchmarks/peers/setup")
    return python


def available_memory():
    with open("/proc/meminfo") as lines:
        line = next(line for line in lines if line.startswith("MemAvailable"))
    return int(line.split()[1]) * 1024
