"""The README.md of a merged model, read by huggingface_hub."""

import json
import subprocess

import pytest
from command import executable
from huggingface_hub import ModelCard
from merge_inputs import make_models, recipe


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    make_models(folder)
    return folder


def card(folder, out, **names):
    """Card of a merge of models with these `_name_or_path` in config.json."""
    for model, name in names.items():
        file = folder / model / "config.json"
        config = json.loads(file.read_text()) | {"_name_or_path": name}
        file.write_text(json.dumps(config))
    (folder / "r.yaml").write_text(recipe("task_arithmetic"))
    command = [executable(), "merge", folder / "r.yaml", out, "--quiet"]
    subprocess.run(command, check=True)
    return ModelCard.load(out / "README.md")


def test_names_of_the_hub(folder, tmp_path):
    data = card(
        folder, tmp_path / "out", base="roberta-base", a="me/a_1.5-b", b="roberta-base"
    ).data
    assert data.base_model == ["roberta-base", "me/a_1.5-b"]
    assert data.base_model_relation == "merge"
    assert data.tags == ["merge", "merganser"]
    assert data.library_name == "transformers"


LOCAL = [
    "",
    "/models/x-1",
    "./x-1",
    "a/b/c",
    "x",
    "out/checkpoint-50",
    "a--b",
    "a\\b-1",
]


@pytest.mark.parametrize("name", [*LOCAL, "a: b-1", '"q-1', "x-1.git", "x-1/", 7])
def test_other_names(folder, tmp_path, name):
    data = card(folder, tmp_path / "out", base=name, a=name, b=name).data
    assert data.base_model is None and "base_model_relation" not in data
    assert data.tags == ["merge", "merganser"]


def test_a_folder_that_is_there(folder, tmp_path):
    (folder / "mine" / "model-1").mkdir(parents=True)
    data = card(folder, tmp_path / "out", base="mine/model-1", a="me/a", b="me/b").data
    assert data.base_model == ["me/a", "me/b"]
