"""Paths in the repository that tests read."""

from pathlib import Path

SUPPORT = Path(__file__).resolve().parent
ROOT = SUPPORT.parents[2]
GOLDEN = ROOT / "tests" / "golden"
