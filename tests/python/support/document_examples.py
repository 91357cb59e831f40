"""Runs the fenced Python examples of the documents."""

import re

import pytest
from repository import ROOT


def run_example(section, names):
    """Runs the Python blocks of a section of docs/python.md, as printed."""
    document = ROOT / "docs" / "python.md"
    if not document.exists():
        pytest.skip("no documents: the tests run away from their clone")
    text = document.read_text(encoding="utf-8").split(f"\n## {section}\n")[1]
    found = re.findall(
        r"^```python\n(.*?)^```$", text.split("\n## ")[0], re.DOTALL | re.MULTILINE
    )
    assert found
    for code in found:
        exec(compile(code, document, "exec"), names)
