"""Paths in the repository that tests read, and its Python files as modules."""

import importlib.util
from pathlib import Path

SUPPORT = Path(__file__).resolve().parent
ROOT = SUPPORT.parents[2]
GOLDEN = ROOT / "tests" / "golden"


def load_module(path):
    """A Python file outside of packages, as a new module."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
