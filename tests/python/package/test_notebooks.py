"""The stored notebooks, and runs of them on a small experiment."""

import ast
import importlib
import json
import os
import re
import shutil

import merganser
import pytest
import report_runs
import tiny_experiment
import tiny_models
from command import run
from notebook_run import shown_by
from repository import ROOT, load_module

EXAMPLES = ROOT / "examples"
if not EXAMPLES.exists():
    pytest.skip(
        "no examples: the tests run away from their clone", allow_module_level=True
    )
NOTEBOOKS = sorted(EXAMPLES.glob("*.ipynb"))
KEPT = NOTEBOOKS + sorted((ROOT / "docs/notebooks").glob("*.ipynb"))


def cells(path, kind="code"):
    notebook = json.loads(path.read_text(encoding="utf-8"))
    return [cell for cell in notebook["cells"] if cell["cell_type"] == kind]


@pytest.mark.parametrize(
    "path", KEPT, ids=lambda path: f"{path.parent.name}/{path.stem}"
)
def test_kept_with_outputs(path):
    text = path.read_text(encoding="utf-8")
    assert len(text) < 1_000_000  # mostly images
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
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and "merganser" in node.module.split("."):
            exported = importlib.import_module(node.module).__all__
            assert {name.name for name in node.names} <= {*exported, "report"}
    used = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "merganser"
    }
    assert used <= set(merganser.__all__)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_headings(path):
    """A heading has a line of its own, in front of its paragraphs."""
    for cell in cells(path, "markdown"):
        first, *rest = "".join(cell["source"]).splitlines()
        assert not first.startswith("# #")
        assert not [line for line in rest if line == "#" or line.startswith("# ")]


@pytest.mark.slow
def test_full_version(tmp_path):
    """It has the switch on and links that are right where it is kept."""
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("nbclient")
    module = load_module(ROOT / "scripts/run_notebooks.py")
    switched = []
    for path in NOTEBOOKS:
        notebook = nbformat.read(path, as_version=4)
        module.relink(notebook, EXAMPLES, module.FULL)
        texts = [c.source for c in notebook.cells if c.cell_type == "markdown"]
        for link in module.LINK.findall("\n".join(texts)):
            target = os.path.normpath(module.FULL / link.partition("#")[0])
            assert os.path.exists(target), link
        if module.has_switch(notebook):
            module.turn_on(notebook)
            sources = [c.source for c in notebook.cells if c.cell_type == "code"]
            assert "\nFULL = True\n" in sources[0]
            switched.append(path.stem)
    assert {"02_fishers", "06_beyond_one_step", "07_imdb_plus_datasets"} < {*switched}


# Sizes at the top of a notebook, and what the small experiment has instead.
SMALLER = {
    "01_quickstart": {
        'EXPERTS = "movie", ("amazon", "nyt", "tweets")': (
            'EXPERTS = "movie", ("amazon", "nyt")'
        ),
        "FISHER_TEXTS = 100": "FISHER_TEXTS = 20",
        "TEST_TEXTS = 200": "TEST_TEXTS = 20",
    },
    "02_fishers": {
        "EXAMPLES = 32": "EXAMPLES = 20",
        "TEST_TEXTS = 100": "TEST_TEXTS = 20",
        "WHILE_TRAINING = ()": 'WHILE_TRAINING = ("online_mc_eval", "adam")',
    },
    "03_mismatch_and_target": {"LIMIT = 16": "LIMIT = 10"},
    "04_removal": {
        "TRAIN_TEXTS = 400": "TRAIN_TEXTS = 40",
        "FISHER_TEXTS = 60": "FISHER_TEXTS = 10",
    },
    "05_ridge_and_bayes": {"REPEATS = 20": "REPEATS = 3"},
    "06_beyond_one_step": {
        "REFINE_TEXTS = 50": "REFINE_TEXTS = 10",
        "ADAMW_STEPS = 20": "ADAMW_STEPS = 5",
        "TRAIN_TEXTS = 150": "TRAIN_TEXTS = 40",
    },
    "09_sentence_encoders": {
        "TRAIN_PAIRS = 240": "TRAIN_PAIRS = 32",
        "FISHER_PAIRS = 40": "FISHER_PAIRS = 8",
        "TEST_PAIRS = 160": "TEST_PAIRS = 20",
    },
}


@pytest.fixture(scope="module")
def small_clone(tmp_path_factory):
    """A directory with examples/, out/snippets and data/ of the small experiment."""
    root = tmp_path_factory.mktemp("clone")
    folder = root / "examples"
    folder.mkdir()
    shutil.copy(EXAMPLES / "finished_run.py", folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(tiny_models.SIZE, "max_position_embeddings", 128)
        run("run", tiny_experiment.make(folder), root / "out/snippets")
    for name in tiny_experiment.SETS:
        for part in ("train", "test"):
            target = root / f"data/snippets/{name}/{part}.jsonl"
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(folder / f"{name}-{part}.jsonl", target)
    return root


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALLER)
def test_runs(name, small_clone):
    """On models of 16 dimensions: every figure has a finding, and the reverse."""
    texts, images, printed = shown_by(
        EXAMPLES / f"{name}.ipynb", small_clone, SMALLER[name]
    )
    assert 2 <= images == sum(text.count("\n**") for text in texts)
    if name == "02_fishers":  # training again gave the same bits
        distances = re.findall(r"weights at most (\S+) \(relative\)", printed)
        assert distances == ["0.0e+00"] * 2


@pytest.mark.slow
@pytest.mark.parametrize(
    "options, missing",
    [({}, 0), ({"seeds": (0, 1)}, 0), ({"full": False}, 6)],
    ids=["one seed", "seeds", "only accuracies"],
)
def test_reads_an_experiment(options, missing, tmp_path):
    (tmp_path / "examples").mkdir()
    report_runs.make(tmp_path / "out/invented", **options)
    switch = {'else "snippets"': 'else "invented"'}
    texts, images, _ = shown_by(
        EXAMPLES / "07_imdb_plus_datasets.ipynb", tmp_path, switch
    )
    assert len([text for text in texts if "Not measured" in text]) == missing
    assert images == 7 - missing
    (findings,) = [text for text in texts if "**Which merge.**" in text]
    (table,) = [text for text in texts if text.startswith("| model |")]
    for text in (findings, table):
        assert ("±" in text) == ("seeds" in options)
    # The experiment's output, which is a path, of each seed if there are several.
    assert "output, `gradient_matching`" in findings
    pairs = [text for text in texts if "**Is `gradient_matching` better?**" in text]
    assert bool(pairs) == (not missing)
