"""Inputs modelled on public bug reports, where the developers' directory has them: a
script each, which exits 1 while the failure exists and 0 once it is mended. Other
tests hold the right values without it."""

import ast
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import merganser
import pytest
from command import executable
from repository import ROOT
from tokenizer_folders import shared_data

CASES = (shared_data() or ROOT.parent / "shared" / "data").parent / "cases"
SCRIPTS = sorted(CASES.glob("*/try.py"))
# A second text is to be used or refused. The script takes only a refusal for mended,
# but the text is used (train/test_data_files.py).
EXIT_CODES = {"D09": 1}


def packages(script):
    """The top-level modules that a script imports."""
    for node in ast.walk(ast.parse(script.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            yield node.module.partition(".")[0]
        elif isinstance(node, ast.Import):
            for name in node.names:
                yield name.name.partition(".")[0]


def case(script):
    """Importing torch alone takes over two seconds."""
    slow = not {"torch", "merganser"}.isdisjoint(packages(script))
    marks = [pytest.mark.slow] if slow else []
    return pytest.param(script, id=script.parent.name, marks=marks)


@pytest.mark.skipif(not SCRIPTS, reason="needs the developers' directory of cases")
@pytest.mark.parametrize("script", [case(script) for script in SCRIPTS])
def test_case(script):
    missing = sorted({name for name in packages(script) if not find_spec(name)})
    if missing:
        pytest.skip(f"needs {', '.join(missing)}")
    package = Path(merganser.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, script.name],
        cwd=script.parent,
        env=os.environ | {"MERGANSER": executable(), "PYTHONPATH": str(package)},
        capture_output=True,
        text=True,
        check=False,
    )
    readme = (script.parent / "README").read_text(encoding="utf-8")
    expected = EXIT_CODES.get(script.parent.name, 0)
    assert done.returncode == expected, f"{readme}\n{done.stdout}{done.stderr}"
