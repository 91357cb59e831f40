"""Runs of notebooks in Jupyter's kernel."""

import pytest


def shown_by(path, clone, replacements):
    """Runs a notebook as one in examples/ of `clone`, with texts of single cells
    replaced; returns what it shows: all paragraphs and tables as Markdown, the number
    of images, and what it prints."""
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    notebook = nbformat.read(path, as_version=4)
    for old, new in replacements.items():
        changed = [cell for cell in notebook.cells if old in cell.source]
        assert len(changed) == 1, old
        changed[0].source = changed[0].source.replace(old, new)
    resources = {"metadata": {"path": clone / "examples"}}
    nbclient.NotebookClient(notebook, timeout=300, resources=resources).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    shown = [output["data"] for output in outputs if "data" in output]
    texts = [data["text/markdown"] for data in shown if "text/markdown" in data]
    assert not [text for text in texts if "nan" in text.split()]
    printed = "".join(o["text"] for o in outputs if o.get("name") == "stdout")
    return texts, sum("image/png" in data for data in shown), printed
