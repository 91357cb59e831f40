#!/usr/bin/env python3
"""Builds Merganser where there is a GPU, tests its kernels there and times them:

    scripts/gpu_check [--out DIR]

Needs torch with CUDA in the Python that runs it, nvcc, cmake and ninja; what else is
missing comes from build/gpu_carry, which scripts/gpu_pack creates on another
machine. Nothing is loaded from a network. Takes at most 8 minutes and leaves report.md,
report.json and what each step printed in DIR (out/gpu_check). Exit code 0: everything
passed.
"""

import argparse
import importlib.util
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CARRY = ROOT / "build/gpu_carry"
BUILD = ROOT / "build/gpu_check"
SECONDS = 470  # of all steps together
TESTS = [
    f"tests/python/{name}.py"
    for name in (
        "ops/test_ops",
        "ops/test_ops_devices",
        "train/test_adamw_devices",
        "fisher/test_models_devices",
    )
]
PYTEST = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider"]
# Every operator, each dtype, addresses and sizes that fit no vector.
SMALL_CASES = [*PYTEST, "-q", "-x", TESTS[1], "-k", "alignment and cuda"]
# Not what CUDA answers to torch's questions about its version, and torch's own kernels
# only where it matters what they have written.
OURS = ["--kernel-name", "kns=merganser"]
SANITIZERS = {"memcheck": OURS, "racecheck": OURS, "initcheck": []}
SANITIZER = ["compute-sanitizer", "--report-api-errors", "no", "--error-exitcode", "9"]

FACTS = """
import json, torch
gpu = torch.cuda.is_available()
print(json.dumps({
    "torch": torch.__version__,
    "CUDA of torch": torch.version.cuda,
    "GPU": torch.cuda.get_device_name() if gpu else None,
    "GPUs": torch.cuda.device_count(),
    "architecture": "%d.%d" % torch.cuda.get_device_capability() if gpu else None,
}))
"""


def last_line(*command):
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip().splitlines()[-1]


def unpack_missing(folder):
    """Unpacks the carried wheels whose package this Python does not have."""
    for wheel in sorted(CARRY.glob("wheels/*.whl")):
        if importlib.util.find_spec(wheel.name.split("-")[0]) is None:
            zipfile.ZipFile(wheel).extractall(folder)


class Check:
    """The steps, one after the other, and what they came to."""

    def __init__(self, out):
        self.out = out
        self.end = time.monotonic() + SECONDS
        self.steps = []
        packages = BUILD / "packages"
        unpack_missing(packages)
        paths = [f"{BUILD}/python", f"{packages}", os.environ.get("PYTHONPATH")]
        self.environment = os.environ | {
            "PYTHONPATH": ":".join(filter(None, paths)),
            "PYTHONUNBUFFERED": "1",
            "FAIL_WITHOUT_CUDA": "1",
        }

    def run(self, name, command, seconds, **variables):
        """Returns True if the command succeeds within `seconds` and the time left."""
        start = time.monotonic()
        limit = min(seconds, self.end - start)
        log = self.out / f"{name}.txt"
        with open(log, "w") as file:
            process = subprocess.Popen(
                ["env", *command],  # says by itself what there is not
                cwd=ROOT,
                env=self.environment | variables,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                code = process.wait(max(limit, 0))
                result = "passed" if code == 0 else f"failed ({code})"
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                result = f"stopped after {limit:.0f} s"
        lines = [x for x in log.read_text(errors="replace").splitlines() if x.strip()]
        step = {
            "step": name,
            "result": result,
            "seconds": round(time.monotonic() - start, 1),
            "last line": re.sub(r"=+", "", lines[-1]).strip() if lines else "",
        }
        self.steps.append(step)
        print(
            "{step:10} {result:12} {seconds:6} s  {last line}".format(**step),
            flush=True,
        )
        return result == "passed"

    def build(self, architecture):
        """Builds for this machine's GPU; for all architectures without one."""
        options = [
            *("-G", "Ninja", "-S", ROOT, "-B", BUILD),
            *("-DCMAKE_BUILD_TYPE=Release", "-DMERGANSER_CUDA=ON"),
            *("-DMERGANSER_TESTS=OFF", f"-DPython_EXECUTABLE={sys.executable}"),
            f"-DCMAKE_PREFIX_PATH={CARRY}/usr",
        ]
        if architecture:
            options += [f"-DCMAKE_CUDA_ARCHITECTURES={architecture.replace('.', '')}"]
        script = f'cmake "$@" && ninja -C {shlex.quote(str(BUILD))} merganser_python'
        return self.run("build", ["sh", "-c", script, "sh", *options], 280)


def report(out, facts, steps):
    benchmark = out / "benchmark.json"
    results = json.loads(benchmark.read_text()) if benchmark.exists() else None
    whole = {"machine": facts, "steps": steps, "benchmark": results}
    (out / "report.json").write_text(json.dumps(whole, indent=1) + "\n")
    lines = ["# Merganser on a GPU", ""]
    lines += [f"- {name}: {value}" for name, value in facts.items()]
    lines += ["", "| step | result | s | last line |", "| --- | --- | --: | --- |"]
    lines += ["| " + " | ".join(map(str, step.values())) + " |" for step in steps]
    if any(step["step"] == "benchmark" for step in steps):
        lines += ["", (out / "benchmark.txt").read_text()]  # also what stopped halfway
        benchmark.unlink(missing_ok=True)
    (out / "report.md").write_text("\n".join(lines) + "\n")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", default=ROOT / "out/gpu_check"
    )
    out = parser.parse_args().out.resolve()
    out.mkdir(parents=True, exist_ok=True)

    os.environ["PATH"] += ":/usr/local/cuda/bin"  # where it is, if it is not in PATH
    known = last_line(sys.executable, "-W", "ignore", "-c", FACTS)
    if known is None:
        sys.exit(f"gpu_check: {sys.executable} has no torch that can be imported")
    facts = json.loads(known)
    query = "--query-gpu=driver_version,memory.total,clocks.max.sm"
    facts["driver, memory, clock"] = last_line(
        "nvidia-smi", query, "--format=csv,noheader"
    )
    facts["nvcc"] = last_line("nvcc", "--version")
    facts["Python"] = sys.version.split()[0]

    check = Check(out)
    built = check.build(facts["architecture"])
    gpu = facts["GPU"] is not None
    if built and not gpu:
        built = check.run("collect", [*PYTEST, "-q", "--collect-only", *TESTS], 120)
    elif built:
        check.run("tests", [*PYTEST, "-q", "-rs", *TESTS], 150)
        timings = ["benchmarks/gpu.py", "--json", out / "benchmark.json"]
        check.run("benchmark", [sys.executable, *timings], 150)
        # Every tensor has memory of its own, so that accesses next to it are detected.
        own = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
        for tool, options in SANITIZERS.items():
            command = [*SANITIZER, "--tool", tool, *options, *SMALL_CASES]
            check.run(tool, command, 90, **own)
    report(out, facts, check.steps)
    if not all(step["result"] == "passed" for step in check.steps):
        sys.exit(f"gpu_check: not everything passed; see {out / 'report.md'}")
    if not gpu:
        sys.exit(
            "gpu_check: built, but there is no GPU here: nothing was tested on one"
        )
    print(f"gpu_check: everything passed; see {out / 'report.md'}")


if __name__ == "__main__":
    main()
