"""The benchmark and the notebook of a language model, on one of 16 dimensions."""

import json
import sys

import pytest
import tiny_language_model
from notebook_run import shown_by
from repository import ROOT, load_module

BENCHMARK = ROOT / "benchmarks/language_model.py"
NOTEBOOK = ROOT / "examples/08_language_model.ipynb"
if not NOTEBOOK.exists():
    pytest.skip(
        "no examples: the tests run away from their clone", allow_module_level=True
    )
SMALLER = {
    "TRAIN_TEXTS = 48": "TRAIN_TEXTS = 24",
    "FISHER_TEXTS = 12": "FISHER_TEXTS = 8",
    "TEST_TEXTS = 32": "TEST_TEXTS = 12",
}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*(rho is|too few examples|no Gram matrices)")
def test_benchmark(tmp_path, monkeypatch, capsys):
    """Every merge and removal has a row, which a second call keeps."""
    monkeypatch.syspath_prepend(str(BENCHMARK.parent))
    module = load_module(BENCHMARK)
    sets = ("imdb", "yelp", "agnews", "toxic", "amazon")
    tiny_language_model.make_model(tmp_path / "model")
    tiny_language_model.make_texts(tmp_path / "data", sets)
    numbers = {"train": 24, "test": 8, "limit": 12, "max-length": 12, "lr": 1e-3}
    options = [f"--{name}={value}" for name, value in numbers.items()]
    monkeypatch.setattr(sys, "argv", ["", "data", "--model=model", *options])
    monkeypatch.chdir(tmp_path)
    module.main()
    first = capsys.readouterr().out
    assert " s\n" in first  # measured
    module.main()
    second = capsys.readouterr().out
    assert " s\n" not in second
    assert all(table in first for table in second.strip().split("\n\n"))
    for table, number in {"merges": 21, "removals": 10}.items():
        file = tmp_path / f"out/language_model/{table}.json"
        rows = json.loads(file.read_text())["rows"]
        assert len(rows) == number
        for name, row in rows.items():
            assert f"| {name} |" in second
            assert all(len(losses) == 8 for losses in row.values())


@pytest.mark.slow
def test_notebook(tmp_path):
    """Every figure has a paragraph, and no text of the data is shown."""
    (tmp_path / "examples").mkdir()
    tiny_language_model.make_model(tmp_path / "data/smollm2-135m-instruct")
    sets = ("movie", "nyt", "tweets")
    tiny_language_model.make_texts(tmp_path / "data/snippets", sets)
    texts, images, _ = shown_by(NOTEBOOK, tmp_path, SMALLER)
    assert images == 3 and sum(text.count("\n**") for text in texts) >= images
    assert not [word for word in tiny_language_model.WORDS if word in " ".join(texts)]
