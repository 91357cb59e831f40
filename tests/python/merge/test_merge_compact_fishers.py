"""Merges with Fishers that are stored in bfloat16 or factored."""

import json

import merganser
import pytest
import torch
from command import run
from merging_files import WITH_FISHERS, Files, assert_equal_bits
from safetensors.torch import load_file

NAMES = ["base", "a", "b"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """By storage, models with compact Fishers; and with their values in float32."""
    found = {}
    for storage in ("bfloat16", "factored"):
        for form in ("compact", "whole"):
            torch.manual_seed(4)
            files = Files(tmp_path_factory.mktemp(f"{storage}-{form}"))
            found[storage, form] = files
            for name in NAMES:
                path = files.folder / f"{name}.fisher.safetensors"
                files.fishers[name].save(path, storage=storage)
                files.fishers[name] = merganser.FisherResult.load(path)
                if form == "whole":
                    files.fishers[name].save(path)
    return found


def merged_file(files, method, out, **options):
    merganser.merge_recipe(files.recipe(method, **options), out)
    return (out / "model.safetensors").read_bytes()


@pytest.mark.parametrize("storage", ["bfloat16", "factored"])
@pytest.mark.parametrize("method", WITH_FISHERS)
def test_is_that_of_the_values_in_float32(folders, storage, method, tmp_path):
    files = [folders[storage, form] for form in ("compact", "whole")]
    compact, whole = [
        merged_file(f, method, tmp_path / str(i)) for i, f in enumerate(files)
    ]
    assert compact == whole
    assert_equal_bits(files[0].merge(method), tmp_path / "0")


@pytest.mark.parametrize(
    "options",
    [
        {"dtype": "float64", "out_dtype": "float32"},
        {"out_dtype": "bfloat16"},
        {"parameters": {"normalize_fishers": True}},
    ],
)
def test_with_other_arithmetic(folders, options, tmp_path):
    compact, whole = [
        merged_file(
            folders["factored", form], "gradient_matching", tmp_path / form, **options
        )
        for form in ("compact", "whole")
    ]
    assert compact == whole


def test_in_memory_from_files(folders, tmp_path):
    files = folders["factored", "compact"]
    merganser.merge_recipe(files.recipe("gradient_matching"), tmp_path / "out")
    paths = [files.folder / f"{name}.fisher.safetensors" for name in NAMES]
    options = {"fishers": paths[1:], "base_fisher": paths[0]}
    assert_equal_bits(files.merge("gradient_matching", **options), tmp_path / "out")


@pytest.mark.parametrize("storage", ["bfloat16", "factored"])
def test_is_shown(folders, storage, tmp_path):
    files = folders[storage, "compact"]
    recipe = files.recipe("gradient_matching")
    text = run("plan", recipe).stdout
    for name in NAMES:
        assert f"{name}.fisher.safetensors ({storage})" in text
    plan = json.loads(run("plan", recipe, "--json").stdout)
    for entry in (plan["base"], *plan["models"]):
        assert entry["fisher_storage"] == storage
    stored = sum(
        tensor.nbytes
        for name in NAMES
        for tensor in load_file(files.folder / f"{name}.fisher.safetensors").values()
    )
    weights = sum(t.nbytes for name in NAMES for t in files.models[name].values())
    assert plan["bytes_read"] == weights + stored
    run("merge", recipe, tmp_path / "out")
    text = run("verify", tmp_path / "out").stdout
    assert text.count(f".fisher.safetensors ({storage})") == 3
    assert "changed" not in text
    verified = json.loads(run("verify", tmp_path / "out", "--json").stdout)
    assert [row.get("storage") for row in verified["inputs"]].count(storage) == 3
    text = run("inspect", files.folder / "a.fisher.safetensors").stdout
    assert storage in text


def test_ewr_samples_them(folders):
    """The note on its floor counts the values of the expansion."""
    notes = [
        json.loads(
            run("plan", folders["factored", form].recipe("ewr"), "--json").stdout
        )
        for form in ("compact", "whole")
    ]
    assert notes[0]["notes"] == notes[1]["notes"]
    assert any("floor" in note for note in notes[0]["notes"])


def test_a_change_of_storage_is_noticed(folders, tmp_path):
    """The values are the same, and so is their hash; the metadata are not."""
    torch.manual_seed(4)
    files = Files(tmp_path)
    path = tmp_path / "a.fisher.safetensors"
    files.fishers["a"].save(path, storage="factored")
    run("merge", files.recipe("fisher"), tmp_path / "out")
    merganser.FisherResult.load(path).save(path)
    done = run("verify", tmp_path / "out", check=False)
    assert done.returncode != 0
    assert "changed" in done.stdout
