"""The stored notebooks, and a run of 02_fishers on a small experiment."""

import ast
import json

import merganser
import pytest
import tiny_experiment
import tiny_models
from command import run
from repository import ROOT

EXAMPLES = ROOT / "examples"
if not EXAMPLES.exists():
    pytest.skip(
        "no examples: the tests run away from their clone", allow_module_level=True
    )
NOTEBOOKS = sorted(EXAMPLES.glob("*.ipynb"))


def cells(path, kind="code"):
    notebook = json.loads(path.read_text(encoding="utf-8"))
    return [cell for cell in notebook["cells"] if cell["cell_type"] == kind]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_kept_with_outputs(path):
    text = path.read_text(encoding="utf-8")
    assert len(text) < 700_000  # mostly images
    assert str(EXAMPLES.parent) not in text
    outputs = [output for cell in cells(path) for output in cell["outputs"]]
    assert [cell["execution_count"] for cell in cells(path)] == list(
        range(1, len(cells(path)) + 1)
    )
    assert outputs
    assert not [o for o in outputs if o["output_type"] == "error"]
    assert not [o for o in outputs if o.get("name") == "stderr"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_uses_what_is_exported(path):
    tree = ast.parse("\n".join("".join(cell["source"]) for cell in cells(path)))
    used = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "merganser"
    }
    assert used <= set(merganser.__all__)


@pytest.mark.slow
def test_fishers(tmp_path, monkeypatch):
    """Runs every code cell of 02_fishers, on models of 16 dimensions."""
    pytest.importorskip("IPython")
    monkeypatch.setenv("MPLBACKEND", "agg")
    monkeypatch.setitem(tiny_models.SIZE, "max_position_embeddings", 128)
    folder = tmp_path / "examples"
    folder.mkdir()
    run("run", tiny_experiment.make(folder), tmp_path / "out/snippets")
    monkeypatch.chdir(folder)
    names = {}
    for cell in cells(EXAMPLES / "02_fishers.ipynb"):
        code = "".join(cell["source"]).replace("EXAMPLES = 256", "EXAMPLES = 20")
        exec(compile(code, "02_fishers", "exec"), names)
    assert [
        d for r in names["WHILE_TRAINING"] for d in names["runs"][r][0]["distances"]
    ] == [0] * 6
