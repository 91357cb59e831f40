"""Runs notebooks and keeps their outputs. scripts/notebooks sets the environment and
calls it.

    scripts/run_notebooks.py [--full] [NOTEBOOK...]

NOTEBOOK: all of examples/, which keep their outputs in them. With --full, those that
have the switch `FULL = False`, with True in its place; they need a finished run of
their experiment and are kept in docs/notebooks/. Without names, --full leaves out those
whose experiment has not run.
"""

import argparse
import os
import re
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

ROOT = Path(__file__).resolve().parents[1]
FULL = ROOT / "docs" / "notebooks"
SWITCH = re.compile(r"^FULL = False$", re.MULTILINE)
LINK = re.compile(r"(?<=\]\()(?!https?:|#)[^)\s]+(?=\))")


def has_switch(notebook):
    return any(SWITCH.search(cell.source) for cell in notebook.cells)


def turn_on(notebook):
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.source = SWITCH.sub("FULL = True", cell.source)


def relink(notebook, old, new):
    """Changes relative links, for a notebook that moves to another directory."""

    def moved(text):
        return LINK.sub(lambda link: os.path.relpath(old / link[0], new), text)

    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = moved(cell.source)
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if "text/markdown" in data:
                data["text/markdown"] = moved(data["text/markdown"])


def run(notebook, directory):
    # Times and the kernel's version would differ in every run.
    NotebookClient(
        notebook,
        timeout=None,
        resources={"metadata": {"path": directory}},
        record_timing=False,
    ).execute()
    notebook.metadata.language_info = {"name": "python"}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("notebooks", nargs="*", type=Path, metavar="NOTEBOOK")
    parser.add_argument("--full", action="store_true")
    arguments = parser.parse_args()
    paths = arguments.notebooks or sorted((ROOT / "examples").glob("*.ipynb"))
    for path in map(Path.resolve, paths):
        notebook = nbformat.read(path, as_version=4)
        if arguments.full and not has_switch(notebook):
            if arguments.notebooks:
                parser.error(f"{path}: has no line FULL = False")
            continue
        if arguments.full:
            turn_on(notebook)
        try:
            run(notebook, path.parent)
        except CellExecutionError as error:
            if arguments.notebooks or error.ename != "FileNotFoundError":
                raise
            print(f"{path}: left out: {error.evalue}")
            continue
        if arguments.full:
            relink(notebook, path.parent, FULL)
            path = FULL / path.name
            path.parent.mkdir(exist_ok=True)
        nbformat.write(notebook, path)
        print(path)


if __name__ == "__main__":
    main()
