"""Plans with models of the Hub that are not downloaded: from small files and headers.

The same models in the recipe's directory, under the same names, give the expected plan.
"""

import json
import shutil

import hub
import merganser
import pytest
from hub_models import (
    NAMES,
    header_bytes,
    run,
    use_fishers,
    without_notes,
    write_recipe,
)
from merganser import _C
from merge_inputs import save_model
from safetensors.numpy import load_file, save_file

pytestmark = pytest.mark.slow


def plain(case):
    pass


def shards(case):
    import transformers

    model = transformers.AutoModelForSequenceClassification.from_pretrained(
        case.local / "me/a"
    )
    shutil.rmtree(case.local / "me/a")
    save_model(model, case.local / "me/a", max_shard_size="40KB")
    assert len(list((case.local / "me/a").glob("*.safetensors"))) > 2


def slices(case):
    sources = [{"model": name, "layer_range": [0, 2]} for name in ("me/a", "me/b")]
    content = {"merge_method": "linear", "slices": 2 * [{"sources": sources}]}
    case.write(json.dumps(content | {"dtype": "float16"}))


def adapters(case):
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(case.local / "me/base")
    adapted = get_peft_model(model, LoraConfig(r=2, target_modules=["query"]))
    with torch.no_grad():
        adapted.save_pretrained(case.local / "me/lora")
    models = [{"model": name} for name in ("me/base+me/lora", "me/a")]
    case.write(json.dumps({"merge_method": "linear", "models": models}))


def modules(case):
    from sentence_models import sentence_encoder

    for seed, name in enumerate(NAMES):
        shutil.rmtree(case.local / name)
        sentence_encoder(case.local / name, seed)
        shutil.rmtree(case.local / f"{name}-transformer")


@pytest.mark.parametrize(
    "kind", [plain, shards, use_fishers, slices, adapters, modules]
)
def test_plans_from_headers(kind, case, connect, monkeypatch):
    kind(case)
    local, found, received = case.plans(monkeypatch.chdir, connect)
    assert without_notes(found) == without_notes(local)
    used = {f"me/{download['model'].split('/')[1]}" for download in found["downloads"]}
    for name in used:
        folder = case.local / name
        weights = [*folder.rglob("*.safetensors")]
        assert weights
        for file in weights:
            path = f"{name}/{file.relative_to(folder).as_posix()}"
            assert received[path] == header_bytes(file) < file.stat().st_size
    assert local["downloads"] == []
    [note] = [n for n in found["notes"] if n.startswith("not downloaded: ")]
    assert all(name in note for name in used)


def test_names_sizes_and_revisions(case, connect, monkeypatch):
    recipes = write_recipe(case.away, a=f"me/a@{hub.COMMIT}", b="me/b@main")
    _, found, _ = case.plans(monkeypatch.chdir, connect)
    assert recipes.read_text().count("@") == 2
    names = ["me/base", f"me/a@{hub.COMMIT}", "me/b@main"]
    assert [model["model"] for model in found["models"]] == names[1:]
    needed = {
        name: sum(file.stat().st_size for file in (case.local / name).iterdir())
        for name in NAMES
    }
    expected = [{"model": name, "bytes": needed[name.split("@")[0]]} for name in names]
    assert found["downloads"] == expected
    assert {source["path"] for source in found["tensors"][0]["sources"]} == set(names)


def test_one_model_under_two_names(case, connect, monkeypatch):
    """The base is left out of the models, as where it is downloaded."""
    content = {
        "merge_method": "task_arithmetic",
        "base_model": "me/base",
        "models": [{"model": "me/base@main"}, {"model": "me/a"}],
    }
    case.write(json.dumps(content))
    (case.local / "me/base@main").symlink_to(case.local / "me/base")
    _, found, _ = case.plans(monkeypatch.chdir, connect)
    assert [model["model"] for model in found["models"]] == ["me/a"]


@pytest.mark.parametrize("kind", [plain, use_fishers])
def test_on_the_command_line(kind, case, tmp_path):
    kind(case)
    options = ("plan", "r.yaml", "--threads", "1", "--memory", "64MiB")
    cache = tmp_path / "cache"
    local = run(*options, cache=cache, cwd=case.local)
    assert local.returncode == 0, local.stderr
    with hub.serve(case.repositories()) as url:
        found = run(*options, "-q", cache=cache, url=url, cwd=case.away)
        report = run(*options, "-q", "--json", cache=cache, url=url, cwd=case.away)
    for done in (found, report):
        assert done.returncode == 0 and done.stderr == ""
    lines = found.stdout.splitlines()
    notes = [line for line in lines if "not downloaded" in line]
    assert [line for line in lines if line not in notes] == local.stdout.splitlines()
    assert len(notes) == (4 if kind is use_fishers else 1)
    assert json.loads(report.stdout)["threads"] == 1
    assert len(json.loads(report.stdout)["downloads"]) == 3


def test_what_is_cached_is_not_counted(case, connect, monkeypatch):
    from huggingface_hub import snapshot_download

    monkeypatch.chdir(case.away)
    with hub.serve(case.repositories()) as url:
        connect(url)
        cache = case.away / "cache"
        monkeypatch.setenv("HF_HUB_CACHE", str(cache))
        before = merganser.plan("r.yaml")["downloads"][1]["bytes"]
        snapshot_download("me/a", cache_dir=cache, allow_patterns=["vocab.txt"])
        after = merganser.plan("r.yaml")["downloads"][1]["bytes"]
    assert before - after == (case.local / "me/a/vocab.txt").stat().st_size


def test_a_server_without_ranges(case, connect, monkeypatch):
    """It would send everything; the client leaves after the header."""
    file = case.local / "me/a/model.safetensors"
    tensors = load_file(file)
    name = "bert.embeddings.word_embeddings.weight"
    for model in NAMES:
        path = case.local / model / "model.safetensors"
        large = {name: tensors[name].repeat(2000, axis=0)}
        save_file(load_file(path) | large, path)
    size = file.stat().st_size
    local, found, received = case.plans(monkeypatch.chdir, connect, ranges=False)
    assert without_notes(found) == without_notes(local)
    assert size > 8_000_000
    assert received["me/a/model.safetensors"] < size / 8


def test_nothing_reads_headers_as_weights(case, connect, monkeypatch, tmp_path):
    """A directory of headers has no weights: it can neither be hashed nor merged."""
    from merganser._hub.headers import fetch_headers

    root = tmp_path / "headers"
    monkeypatch.chdir(case.away)
    with hub.serve(case.repositories()) as url:
        connect(url)
        headers = fetch_headers("me/a", "me/a", "main", str(root))
    size = (headers / "model.safetensors").stat().st_size
    assert size == header_bytes(case.local / "me/a/model.safetensors")
    assert merganser.inspect(headers, hashes=False)["tensors"]
    with pytest.raises(merganser.Error, match="ends at byte"):
        merganser.inspect(headers)
    content = {"merge_method": "linear", "models": [{"model": str(headers)}]}
    (case.away / "r.yaml").write_text(json.dumps(content))
    with pytest.raises(merganser.Error, match="ends at byte"):
        merganser.merge_recipe("r.yaml", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    # The description makes the difference to a cut file; no repository can have one.
    shutil.rmtree(headers.parents[1] / "headers")
    with pytest.raises(merganser.InputError, match="truncated"):
        _C.content_hash(headers)
