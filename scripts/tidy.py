#!/usr/bin/env python3
"""Runs clang-tidy on the C++ files that differ from main:

    scripts/tidy [--limit N] [FILE...]

A file differs when it has changed since this branch left origin/main, or since HEAD~1
where no such commit exists. A header is checked through a source that includes it. The
most changed files come first; those over the limit are listed and not checked. FILE:
these instead, all of them. Exit code 1: findings.
"""

import argparse
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CONFIGURED = ROOT / "build/tidy/cmake"  # a command for each file
BUILD = ROOT / "build/tidy"  # the same commands as clang takes them


def git(*arguments):
    """The output; empty where git fails."""
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else ""


def base_commit():
    head = git("rev-parse", "HEAD")
    fork = git("merge-base", "origin/main", "HEAD")
    return fork if fork and fork != head else git("rev-parse", "--verify", "HEAD~1")


def changed_files(base):
    """Changed and untracked C++ files, the most changed first; moved ones only where
    their content has also changed."""
    lines = {}
    fields = iter(
        git("diff", "--numstat", "-M", "-z", "--diff-filter=d", base).split("\0")
    )
    for field in fields:
        if field:
            added, removed, path = field.split("\t")
            if not path:  # moved: the old and the new name follow
                path = [next(fields), next(fields)][1]
            if added != "-":
                lines[path] = int(added) + int(removed)
    for path in git("ls-files", "--others", "--exclude-standard").splitlines():
        lines[path] = len((ROOT / path).read_bytes().splitlines())
    return [
        path
        for path in sorted(lines, key=lambda path: (-lines[path], path))
        if lines[path] and path.endswith((".cpp", ".h"))
    ]


def clang_commands():
    """{source: its entry of compile_commands.json} without what only GCC has: OpenMP's
    headers, and its precompiled ones (so that every source has to include what it
    uses)."""
    configure = ["cmake", "--preset", "cpu", "-B", CONFIGURED]
    configure.append("-DCMAKE_UNITY_BUILD=OFF")
    subprocess.run(configure, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    entries = {}
    for entry in json.loads((CONFIGURED / "compile_commands.json").read_text()):
        path = os.path.relpath(Path(entry["directory"], entry["file"]), ROOT)
        drop = r" (-include \S*cmake_pch\S*|-fopenmp)(?= )"
        command = re.sub(drop, "", entry.pop("command"))
        entries[path] = entry | {"arguments": shlex.split(command)}
    return entries


def source_of(path, sources):
    """The source through which `path` is compiled; None: nothing includes it."""
    if path in sources:
        return path
    same_name = re.sub(r"\.h$", ".cpp", path)
    if same_name in sources:
        return same_name
    include = rf'#include "(.*/)?{re.escape(Path(path).name)}"'
    found = git("grep", "-lE", include, "--", "*.cpp").splitlines()
    return next((source for source in found if source in sources), None)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--limit", type=int, metavar="N", default=12)
    parser.add_argument("files", nargs="*", metavar="FILE")
    arguments = parser.parse_args()

    tidy = shutil.which("clang-tidy-14") or shutil.which("clang-tidy")
    if tidy is None:
        sys.exit("tidy: clang-tidy is missing; run: apt-get install clang-tidy-14")

    if arguments.files:
        base, limit = None, len(arguments.files)
        files = [
            os.path.relpath(Path(path).resolve(), ROOT) for path in arguments.files
        ]
    else:
        base, limit = base_commit(), arguments.limit
        if not base:
            print(
                "tidy: this commit has no parent to compare with: nothing was checked"
            )
            return
        files = changed_files(base)

    entries = clang_commands()
    BUILD.mkdir(parents=True, exist_ok=True)
    (BUILD / "compile_commands.json").write_text(json.dumps(list(entries.values())))
    through = {}  # {source: the files that are checked through it}
    apart = []
    for path in files:
        source = source_of(path, entries)
        if source is None:
            apart.append(f"{path} (no source includes it)")
        elif source in through or len(through) < limit:
            through.setdefault(source, []).append(path)
        else:
            apart.append(path)

    def check(source):
        start = time.monotonic()
        done = subprocess.run(
            [tidy, "--quiet", "-p", BUILD, ROOT / source],
            capture_output=True,
            text=True,
        )
        return source, done, time.monotonic() - start

    failed = checked = 0
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for source, done, seconds in pool.map(check, through):
            errors = re.findall(r".*\[clang-diagnostic-error\]", done.stdout)
            if errors and all("builtin" in x for x in errors):
                apart += [f"{x} (has builtins of GCC)" for x in through[source]]
                continue
            failed += done.returncode != 0
            checked += len(through[source])
            headers = [path for path in through[source] if path != source]
            note = f" ({', '.join(headers)})" if headers else ""
            result = "ok" if done.returncode == 0 else "FINDINGS"
            print(f"tidy: {result:8} {seconds:4.0f} s  {source}{note}", flush=True)
            if done.returncode:
                # A crash says so on stderr only.
                print(done.stdout or done.stderr)
    for path in apart:
        print(f"tidy: not checked: {path}")
    since = f"that differ from {base[:12]}" if base else "named"
    print(f"tidy: checked {checked} of the {len(files)} C++ files {since}")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
