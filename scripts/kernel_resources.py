#!/usr/bin/env python3
"""Compares what ptxas says of the kernels with tests/kernel_resources.txt.

    scripts/kernel_resources.py            after scripts/cuda_check, which also calls it
    scripts/kernel_resources.py --update   writes the table again

Fails where a kernel spills registers, takes more of anything than the table says or
is not in it. Another compiler than the table's is held only to spilling nothing.
"""

import argparse
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TABLE = ROOT / "tests/kernel_resources.txt"
LOG = ROOT / "build/cuda_check/ptxas.log"
UPDATE = "if that is meant, run scripts/kernel_resources.py --update"

HEADER = """\
# Resources of each kernel on each architecture: registers of a thread / bytes of a
# block's shared memory / bytes of a thread's stack; zeros at the end are left out.
# Written by scripts/kernel_resources.py --update.
"""
FUNCTION = re.compile(
    r"Compiling entry function '(\S+)' for '(\w+)'"
    r".*?Function properties for \1\n +(\d+) bytes stack frame"
    r", (\d+) bytes spill stores, (\d+) bytes spill loads"
    r".*?Used (\d+) registers([^\n]*)",
    re.DOTALL,
)


def plain(mangled):
    """The kernels' names as people write them: no namespaces, no arguments."""
    text = subprocess.run(
        ["c++filt"],
        input="\n".join(mangled),
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for noise in ("(anonymous namespace)::", "merganser::kernels::", "merganser::"):
        text = text.replace(noise, "")
    text = re.sub(r"\((\w+)\)(?=\d)", r"\1 ", text)  # (MergeFormula)3
    # The arguments begin at the bracket that is in no template's.
    names = []
    for line in text.splitlines():
        depth = 0
        for k, ch in enumerate(line):
            depth += (ch == "<") - (ch == ">")
            if ch == "(" and depth == 0:
                line = line[:k]
                break
        names.append(line.removeprefix("void "))
    return names


def read_log(path):
    """({kernel: {architecture: (registers, shared, stack)}}, lines about spills)."""
    found = FUNCTION.findall(path.read_text())
    kernels, spills = {}, []
    names = plain([mangled for mangled, *_ in found])
    for name, (_, arch, stack, stores, loads, registers, rest) in zip(
        names, found, strict=True
    ):
        shared = re.search(r"(\d+) bytes smem", rest)
        figures = (int(registers), int(shared.group(1)) if shared else 0, int(stack))
        kernels.setdefault(name, {})[arch] = figures
        if int(stores) + int(loads):
            spills.append(f"{name} on {arch} spills {stores} bytes and loads {loads}")
    return kernels, spills


def number(arch):
    return int(re.search(r"\d+", arch).group()), arch


def cell(figures):
    text = "/".join(map(str, figures)) if figures else "-"
    return re.sub(r"(/0)+$", "", text)


def to_text(kernels, compiler):
    archs = sorted({a for row in kernels.values() for a in row}, key=number)
    rows = [[f"nvcc {compiler}", *archs]]
    for name, row in sorted(kernels.items()):
        rows.append([name, *(cell(row.get(a)) for a in archs)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            f"{text:{width}}" for text, width in zip(row, widths, strict=True)
        ).rstrip()
        for row in rows
    )


def read_table():
    lines = TABLE.read_text().splitlines()
    heading, *rows = (re.split(r" {2,}", x) for x in lines if not x.startswith("#"))
    kernels = {}
    for name, *cells in rows:
        values = (tuple(map(int, x.split("/"))) for x in cells if x != "-")
        archs = (a for a, x in zip(heading[1:], cells, strict=True) if x != "-")
        kernels[name] = {a: (*v, 0, 0)[:3] for a, v in zip(archs, values, strict=True)}
    return kernels, heading[0].removeprefix("nvcc ")


def differences(actual, expected):
    for name in sorted(expected.keys() - actual.keys()):
        yield f"{name} is in the table and was not compiled"
    for name, row in sorted(actual.items()):
        for arch, figures in row.items():
            limit = expected.get(name, {}).get(arch)
            if limit is None:
                yield f"{name} on {arch} is not in the table"
            elif any(a > b for a, b in zip(figures, limit, strict=True)):
                yield f"{name} on {arch} takes {cell(figures)}, expected {cell(limit)}"


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--update", action="store_true")
    update = parser.parse_args().update
    version = subprocess.run(["nvcc", "--version"], capture_output=True, text=True)
    compiler = re.search(r"release ([\d.]+)", version.stdout).group(1)
    if not LOG.exists():
        sys.exit(f"kernel_resources: {LOG} does not exist: run scripts/cuda_check")
    actual, problems = read_log(LOG)
    if not actual:
        sys.exit(f"kernel_resources: {LOG} says nothing of any kernel")
    print(to_text(actual, compiler))
    if update:
        TABLE.write_text(f"{HEADER}{to_text(actual, compiler)}\n")
    else:
        expected, of_table = read_table()
        if compiler == of_table:
            differing = list(differences(actual, expected))
            problems += [*differing, UPDATE] if differing else []
    if problems:
        sys.exit("\n".join(f"kernel_resources: {p}" for p in problems))


if __name__ == "__main__":
    main()
