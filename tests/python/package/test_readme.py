"""The examples of README.md, docs/python.md and docs/cli.md, run as printed on small
stand-ins for their models and files."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import merganser
import pytest
import tiny_experiment
import tiny_models
import torch
import transformers
from command import executable, run
from repository import ROOT
from safetensors.torch import load_file

README = ROOT / "README.md"


def blocks(document, section, *languages):
    """The fenced blocks of a section, one for each language, in this order."""
    if not README.exists():
        pytest.skip("no README: the tests run away from their clone")
    text = document.read_text(encoding="utf-8").split(f"# {section}\n")[1]
    found = re.findall(
        r"^```(\w+)\n(.*?)^```$",
        re.split(r"\n###? ", text)[0],
        re.DOTALL | re.MULTILINE,
    )
    assert [language for language, _ in found] == list(languages)
    return [code for _, code in found]


def run_python(document, section, names):
    (code,) = blocks(document, section, "python")
    exec(compile(code, document, "exec"), names)


def run_shell(commands):
    path = f"{Path(executable()).parent}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(
        ["bash", "-ec", commands], check=True, env=os.environ | {"PATH": path}
    )


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setitem(tiny_models.SIZE, "max_position_embeddings", 128)
    tiny_experiment.make(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
def test_python(folder):
    tokenizer = transformers.AutoTokenizer.from_pretrained("encoder")

    def load(seed, data):
        torch.manual_seed(seed)
        lines = Path(f"{data}-train.jsonl").read_text().splitlines()
        rows = [json.loads(line) for line in lines]
        texts = [row["text"] for row in rows]
        batch = dict(tokenizer(texts, padding=True, return_tensors="pt"))
        batch["labels"] = torch.tensor([row["label"] for row in rows])
        return tiny_models.bert(num_labels=2), [batch]

    base, base_batches = load(0, "movie")
    experts, batches = zip(load(1, "amazon"), load(2, "nyt"), strict=True)
    names = {"base_batches": base_batches, "experts": experts, "batches": batches}
    before = base.classifier.weight.detach().clone()

    run_python(README, "Python", {"base": base} | names)

    merged = load_file("merged/model.safetensors")["classifier.weight"]
    assert torch.equal(merged, base.classifier.weight)
    assert not torch.equal(merged, before)


@pytest.fixture
def merged_classifiers(folder):
    """Names that the examples of the mismatch and the refinement use."""
    torch.manual_seed(0)
    base, *experts = (tiny_models.bert(num_labels=2) for _ in range(3))
    batches = [[tiny_models.batch([5, 7, 4, 6], num_labels=2)] for _ in experts]
    base_fisher = merganser.fisher(base, batches[0])
    fishers = [merganser.fisher(*pair) for pair in zip(experts, batches, strict=True)]
    return {
        "merganser": merganser,
        "base": base,
        "experts": experts,
        "batches": batches,
        "fishers": fishers,
        "base_fisher": base_fisher,
        "linear": merganser.merge(None, experts, method="linear"),
        "matched": merganser.merge(base, experts, fishers, base_fisher=base_fisher),
    }


def test_mismatch(merged_classifiers, capsys):
    run_python(ROOT / "docs" / "python.md", "Mismatch", merged_classifiers)
    printed = capsys.readouterr().out
    assert "linear" in printed and "gradient matching" in printed


@pytest.mark.slow
def test_refinement(merged_classifiers):
    before = {n: x.clone() for n, x in merged_classifiers["base"].state_dict().items()}
    run_python(ROOT / "docs" / "python.md", "Refinement", merged_classifiers)
    report = json.loads(Path("refinement.json").read_text())
    assert report["steps"][report["kept_step"]]["step"] == report["kept_step"]
    after = merged_classifiers["base"].state_dict()
    assert not torch.equal(after["classifier.weight"], before["classifier.weight"])


@pytest.mark.slow
def test_complete_script(folder):
    for name in ("base", "amazon", "tweets"):
        model = Path("out/snippets/models") / name
        tiny_models.bert(num_labels=2).save_pretrained(model)
        for file in ("vocab.txt", "tokenizer_config.json"):
            shutil.copy(Path("encoder") / file, model)
    for name, data in {"movie": "movie", "amazon": "amazon", "tweets": "nyt"}.items():
        texts = Path("data/snippets") / name
        texts.mkdir(parents=True)
        shutil.copy(f"{data}-train.jsonl", texts / "train.jsonl")

    run_python(ROOT / "docs" / "python.md", "A complete script", {})

    merged = load_file("merged/model.safetensors")
    base = load_file("out/snippets/models/base/model.safetensors")
    assert set(merged) == set(base)
    assert not torch.equal(merged["classifier.weight"], base["classifier.weight"])
    run("eval", "--model", "merged", "--data", "movie-test.jsonl")


@pytest.mark.slow
def test_command_line(folder):
    for name, data in {"movie": "movie", "tweets": "nyt"}.items():
        shutil.copy(f"{data}-train.jsonl", f"{name}.jsonl")
        shutil.copy(f"{data}-test.jsonl", f"{name}.test.jsonl")
    commands, recipe = blocks(README, "Command line", "sh", "yaml")
    Path("recipe.yaml").write_text(recipe)
    run_shell(commands)
    merged = load_file("merged/model.safetensors")
    assert set(merged) == set(load_file("base/model.safetensors"))


@pytest.mark.slow
def test_tangent_space(folder):
    shutil.copy("movie-test.jsonl", "movie.test.jsonl")
    for name, data in {"movie": "movie", "tweets": "nyt"}.items():
        shutil.copy(f"{data}-train.jsonl", f"{name}.jsonl")
    # The base has the head that all experts share.
    run("train", "--model", "encoder", "--train", "movie.jsonl", "--out", "base")
    document = ROOT / "docs" / "cli.md"
    (commands,) = blocks(document, "Training in the tangent space", "sh")
    run_shell(commands)
    merged = load_file("merged/model.safetensors")
    tangent = load_file("tangent-tweets/model.safetensors")
    assert set(merged) == set(tangent)


@pytest.fixture
def models(folder):
    """Models, Fishers, merges and data of the names that docs/cli.md uses."""
    for seed, (name, data) in enumerate(
        {"base": "movie", "amazon": "amazon", "nyt": "nyt"}.items()
    ):
        torch.manual_seed(seed)
        tiny_models.bert(num_labels=2).save_pretrained(f"models/{name}")
        for file in ("vocab.txt", "tokenizer_config.json"):
            shutil.copy(Path("encoder") / file, Path("models") / name)
        shutil.copy(f"{data}-train.jsonl", f"{data}.jsonl")
        shutil.copy(f"{data}-test.jsonl", f"{data}.test.jsonl")
        options = ["--model", f"models/{name}", "--data", f"{data}.jsonl"]
        run("fisher", *options, "--out", f"fishers/{name}.safetensors", "--limit", 20)
    for method, out in {"linear": "merges/linear", "task_arithmetic": "merged"}.items():
        Path("recipe.yaml").write_text(
            f"{{merge_method: {method}, base_model: models/base,"
            " models: [{model: models/amazon}, {model: models/nyt}]}"
        )
        run("merge", "recipe.yaml", out)
    return Path("models")


@pytest.mark.slow
def test_search(models):
    Path("recipe.yaml").write_text(
        "{merge_method: ties, base_model: models/base,"
        " models: [{model: models/amazon}, {model: models/nyt}]}"
    )
    shutil.rmtree("merged")
    for name in ("movie", "nyt"):
        shutil.copy(f"{name}-test.jsonl", f"{name}-validation.jsonl")
    document = ROOT / "docs" / "cli.md"
    (commands,) = blocks(document, "merganser search RECIPE", "sh")
    run_shell(commands.replace("--out search", "--out search --trials 4"))
    assert Path("merged/model.safetensors").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    "command, output",
    [
        ("train", "continued/model.safetensors"),
        ("calibrate", "calibrated/amazon.safetensors"),
        ("eval", None),
        ("subspace", "subspace.safetensors"),
        ("mismatch", None),
        ("refine", "refined/refine.json"),
        ("posterior", "committee/posterior.safetensors"),
    ],
)
def test_command(command, output, models):
    (commands,) = blocks(ROOT / "docs" / "cli.md", f"merganser {command}", "sh")
    run_shell(commands)
    assert output is None or Path(output).exists()
