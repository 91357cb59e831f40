"""merganser fisher --import: a Fisher of another program, and such a Fisher in a recipe
without metadata."""

import json
import os

import command
import hf_training
import merganser
import pytest
import safetensors.torch
import torch
from merganser import FisherResult, InputError
from merganser._checkpoint.import_file import import_fisher


@pytest.fixture
def files(tmp_path):
    model = hf_training.bert()
    model.save_pretrained(tmp_path / "model")
    values = {name: torch.rand_like(p) for name, p in model.named_parameters()}
    values = {name: value.detach().clone() for name, value in values.items()}
    safetensors.torch.save_file(values, tmp_path / "strange.safetensors")
    torch.save(values, tmp_path / "strange.pt")
    return tmp_path, values


@pytest.mark.parametrize("name", ["strange.safetensors", "strange.pt"])
def test_import(name, files):
    folder, values = files
    out = folder / "out.safetensors"
    import_fisher(folder / name, out, num_examples=100, model=folder / "model")
    result = FisherResult.load(out)
    assert (result.estimator, result.num_examples) == ("imported", 100)
    assert result.base_model_hash == merganser.inspect(folder / "model")["content_hash"]
    assert set(result) == set(values)
    assert all(torch.equal(result[name], value) for name, value in values.items())


def test_half_precision_and_no_model(files):
    folder, values = files
    halves = {name: value.bfloat16() for name, value in values.items()}
    safetensors.torch.save_file(halves, folder / "half.safetensors")
    out = folder / "out.safetensors"
    result = import_fisher(folder / "half.safetensors", out, num_examples=7)
    assert result.base_model_hash == ""
    assert all(torch.equal(result[n], halves[n].float()) for n in values)


@pytest.mark.parametrize("storage", ["bfloat16", "factored"])
def test_storage_is_that_of_save(storage, files):
    folder, values = files
    out, peer = folder / "out.safetensors", folder / "peer.safetensors"
    written = import_fisher(folder / "strange.pt", out, num_examples=7, storage=storage)
    FisherResult(values, 7, 7, "imported").save(peer, storage=storage)
    assert out.stat().st_size < folder.joinpath("strange.pt").stat().st_size
    read, expected = FisherResult.load(out), FisherResult.load(peer)
    assert set(read) == set(values)
    for name in values:
        assert torch.equal(read[name], expected[name])
        assert torch.equal(written[name], expected[name])


def test_values_beyond_bfloat16_are_refused(files):
    folder, _ = files
    torch.save({"w": torch.tensor([3.4e38])}, folder / "bad.pt")
    out = folder / "out.safetensors"
    with pytest.raises(merganser.Error, match="Fisher of w is not finite in bfloat16"):
        import_fisher(folder / "bad.pt", out, num_examples=1, storage="bfloat16")
    assert not out.exists()


class Code:
    def __init__(self, folder):
        self.folder = str(folder)

    def __reduce__(self):
        return os.mkdir, (self.folder,)


def test_refusals(files):
    folder, values = files
    out = folder / "out.safetensors"

    def refused(match, file="bad.pt", **options):
        with pytest.raises(InputError, match=match):
            import_fisher(folder / file, out, **{"num_examples": 1, **options})
        assert not out.exists()

    refused("no such file")
    torch.save({"w": Code(folder / "executed")}, folder / "bad.pt")
    refused("contains .*mkdir")
    assert not (folder / "executed").exists()
    torch.save([1, 2], folder / "bad.pt")
    refused("expected a dict of tensors")
    torch.save({"w": torch.tensor([1, 2])}, folder / "bad.pt")
    refused("expected floating-point tensors by name, got others for 'w'")
    torch.save({"w": torch.tensor([-1.0])}, folder / "bad.pt")
    refused("finite and not negative")
    torch.save({"w": torch.ones(2)}, folder / "bad.pt")
    refused("expected a tensor of .*model", model=folder / "model")
    name = "classifier.weight"
    torch.save({name: torch.ones(2)}, folder / "bad.pt")
    refused(r"\[2\]; expected a tensor of .*, with \[3, 16\]", model=folder / "model")
    refused("num_examples must be at least 1", "strange.pt", num_examples=0)
    FisherResult({"w": torch.ones(1)}, 1, 1, "exact").save(folder / "ours.safetensors")
    refused("has the metadata of a Fisher file already", "ours.safetensors")


@pytest.mark.slow
def test_command(files):
    folder, _ = files
    out = folder / "out.safetensors"
    options = ["--import", folder / "strange.pt", "--out", out]
    done = command.run("fisher", *options, "--num-examples", 5, "--json")
    assert json.loads(done.stdout)["estimator"] == "imported"
    assert FisherResult.load(out).num_examples == 5
    done = command.run("fisher", *options, check=False)
    assert done.returncode == 2 and "--num-examples" in done.stderr
    done = command.run(
        "fisher", *options, "--num-examples", 5, "--step", 3, check=False
    )
    assert done.returncode == 2 and "applies to --from-checkpoint" in done.stderr


def test_recipe_without_metadata(files):
    """Taken with num_examples of the recipe; plan notes that nothing is checked."""
    folder, values = files
    recipe = folder / "recipe.yaml"
    model = {
        "model": str(folder / "model"),
        "fisher": str(folder / "strange.safetensors"),
    }
    contents = {"merge_method": "fisher", "models": [model]}
    recipe.write_text(json.dumps(contents))
    with pytest.raises(
        InputError, match="does not contain its number of examples; set"
    ):
        merganser.plan(recipe)
    model["num_examples"] = 50
    recipe.write_text(json.dumps(contents))
    notes = merganser.plan(recipe)["notes"]
    assert any(
        "strange.safetensors is not checked against" in note
        and "name no base_model_hash" in note
        for note in notes
    )
    model["fisher"] = str(folder / "strange.pt")
    recipe.write_text(json.dumps(contents))
    with pytest.raises(InputError, match="strange.pt"):
        merganser.plan(recipe)
