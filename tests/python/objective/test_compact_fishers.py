"""Commands on compact Fishers give what they give on float32 files of these values."""

import command
import merganser
import pytest
import training_inputs
from safetensors.torch import load_file

pytestmark = pytest.mark.slow
TASKS = {"one": 24, "two": 20}


@pytest.fixture(scope="module", params=["bfloat16", "factored"])
def folder(tmp_path_factory, request):
    """A base, two experts, a merge; a compact Fisher of each but the merge, and the
    values that it stands for."""
    folder = tmp_path_factory.mktemp("compact")
    training_inputs.make_experts(folder, TASKS, 30)
    for name in ("base", *TASKS):
        compact = folder / f"{name}.compact.safetensors"
        command.run(
            *("fisher", "--model", folder / name, "--data", folder / f"{name}.jsonl"),
            *("--out", compact, "--storage", request.param, "--max-length", 24, "-q"),
        )
        fisher = merganser.FisherResult.load(compact)
        fisher.save(folder / f"{name}.float32.safetensors")
        (whole, half) = (folder / f"{name}.{s}.safetensors" for s in STORAGES)
        assert half.stat().st_size < 0.8 * whole.stat().st_size
    (folder / "recipe.yaml").write_text(
        "{merge_method: linear, models: [{model: one}, {model: two}]}"
    )
    command.run("merge", folder / "recipe.yaml", folder / "merged", "-q")
    return folder


STORAGES = ("float32", "compact")


def fishers(folder, storage, data=True):
    yield from ("--base", folder / "base")
    yield from ("--base-fisher", folder / f"base.{storage}.safetensors")
    for name in TASKS:
        yield from ("--expert", folder / name)
        yield from ("--fisher", folder / f"{name}.{storage}.safetensors")
        if data:
            yield from ("--data", folder / f"{name}.jsonl")
    if data:
        yield from ("--max-length", 24)


def test_mismatch(folder):
    whole, compact = (
        command.run(
            *("mismatch", *fishers(folder, storage), "--model", folder / "merged"),
            *("--json", "-q"),
        ).stdout.replace(f".{storage}.", ".")
        for storage in STORAGES
    )
    assert "explained" in whole and compact == whole


def test_refine(folder, tmp_path):
    for storage in STORAGES:
        command.run(
            *("refine", *fishers(folder, storage), "--model", folder / "merged"),
            *("--solver", "newton", "--steps", 2, "--out", tmp_path / storage, "-q"),
        )
    whole, compact = (load_file(tmp_path / s / "model.safetensors") for s in STORAGES)
    before = load_file(folder / "merged" / "model.safetensors")
    assert all((x == compact[name]).all() for name, x in whole.items())
    assert any((x != before[name]).any() for name, x in whole.items())


def test_subspace(folder, tmp_path):
    for storage in STORAGES:
        out = tmp_path / f"{storage}.safetensors"
        command.run("subspace", *fishers(folder, storage, data=False), "--out", out)
    whole, compact = (load_file(tmp_path / f"{s}.safetensors") for s in STORAGES)
    assert all((x == compact[name]).all() for name, x in whole.items())
