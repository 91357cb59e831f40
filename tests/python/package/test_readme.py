"""The README's examples, run verbatim on small substitutes for their files."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import tiny_experiment
import tiny_models
import torch
from command import executable, run
from repository import ROOT
from safetensors.torch import load_file

README = ROOT / "README.md"


def blocks(section):
    """The indented blocks of a section, without their indentation."""
    if not README.exists():
        pytest.skip("no README: the tests run outside of the repository")
    text = README.read_text(encoding="utf-8").split(f"\n## {section}\n")[1]
    found = [[]]
    for line in text.split("\n## ")[0].splitlines():
        if line.startswith("    ") or not line:
            found[-1].append(line[4:])
        elif found[-1]:
            found.append([])
    return ["\n".join(lines).strip() for lines in found if any(lines)]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setitem(tiny_models.SIZE, "max_position_embeddings", 128)
    tiny_experiment.make(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_python(folder):
    for name in ("base", "amazon", "tweets"):
        model = Path("out/snippets/models") / name
        tiny_models.bert(num_labels=2).save_pretrained(model)
        for file in ("vocab.txt", "tokenizer_config.json"):
            shutil.copy(Path("encoder") / file, model)
    for name, data in {"movie": "movie", "amazon": "amazon", "tweets": "nyt"}.items():
        texts = Path("data/snippets") / name
        texts.mkdir(parents=True)
        shutil.copy(f"{data}-train.jsonl", texts / "train.jsonl")

    (code,) = blocks("Python")
    exec(compile(code, README, "exec"), {})

    merged = load_file("merged/model.safetensors")
    base = load_file("out/snippets/models/base/model.safetensors")
    assert set(merged) == set(base)
    assert not torch.equal(merged["classifier.weight"], base["classifier.weight"])
    run("eval", "--model", "merged", "--data", "movie-test.jsonl")


def test_command_line(folder):
    for name, data in {"movie": "movie", "tweets": "nyt"}.items():
        shutil.copy(f"{data}-train.jsonl", f"{name}.jsonl")
        shutil.copy(f"{data}-test.jsonl", f"{name}.test.jsonl")
    commands, recipe = blocks("Command line")
    Path("recipe.yaml").write_text(recipe)
    path = f"{Path(executable()).parent}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(
        ["bash", "-ec", commands], check=True, env=os.environ | {"PATH": path}
    )
    merged = load_file("merged/model.safetensors")
    assert set(merged) == set(load_file("base/model.safetensors"))
