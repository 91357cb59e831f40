"""Runs notebooks and keeps their outputs in them. scripts/notebooks sets the
environment and calls it.

    scripts/run_notebooks.py NOTEBOOK...
"""

import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient


def main():
    for path in map(Path, sys.argv[1:]):
        notebook = nbformat.read(path, as_version=4)
        directory = {"metadata": {"path": path.parent}}
        # Times and the kernel's version would differ in every run.
        NotebookClient(
            notebook, timeout=None, resources=directory, record_timing=False
        ).execute()
        notebook.metadata.language_info = {"name": "python"}
        nbformat.write(notebook, path)
        print(path)


if __name__ == "__main__":
    main()
