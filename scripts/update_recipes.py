#!/usr/bin/env python3
"""Writes the tables of docs/recipes.md from the methods that the build has.

    scripts/update_recipes [--check]

--check: changes nothing, fails where the tables differ.
"""

import argparse
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs/recipes.md"
PROGRAM = ROOT / "build/cpu/bin/merganser"
BEGIN = "<!-- methods: scripts/update_recipes -->\n"
END = "<!-- end of methods -->\n"


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check

    text = PAGE.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    tables = subprocess.check_output([PROGRAM, "methods", "--markdown"], text=True)
    new = before + BEGIN + "\n" + tables + "\n" + END + after
    if not check:
        PAGE.write_text(new, encoding="utf-8")
    elif new != text:
        sys.exit("docs/recipes.md is out of date: run scripts/update_recipes")


if __name__ == "__main__":
    main()
