"""Directories of sentence-transformers, which reads the output: its embeddings are
those of a float64 merge of the state dicts that it loads from the inputs."""

import json
import shutil

import merganser
import pytest
import torch
from command import run
from safetensors.torch import load_file, save_file
from sentence_models import TEXTS, cross_encoder, sentence_encoder, state
from sentence_transformers import CrossEncoder, SentenceTransformer

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoders")
    for seed, name in enumerate(["base", "a", "b"]):
        sentence_encoder(folder / name, seed)
        cross_encoder(folder / f"cross-{name}", seed)
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    """Copies that a test may change."""
    for model in saved.iterdir():
        shutil.copytree(model, tmp_path / model.name)
    return tmp_path


def merge(folder, check=True, names="ab", base="base", prefix="", **recipe):
    content = {
        "merge_method": "task_arithmetic",
        "base_model": prefix + base,
        "models": [{"model": prefix + n, "parameters": {"weight": 0.3}} for n in names],
    }
    (folder / "r.yaml").write_text(json.dumps(content | recipe))
    return run("merge", folder / "r.yaml", folder / "out", "--quiet", check=check)


def define_merge(folder, kind=SentenceTransformer, prefix=""):
    """task_arithmetic of `a` and `b` in float64."""
    base, a, b = (state(folder / (prefix + name), kind) for name in ("base", "a", "b"))
    model = kind(str(folder / (prefix + "base")), device="cpu").double()
    model.load_state_dict(
        {n: x + 0.3 * (a[n] - x) + 0.3 * (b[n] - x) for n, x in base.items()}
    )
    return model


def assert_encodes_the_merge(folder):
    expected = define_merge(folder).encode(TEXTS, convert_to_tensor=True)
    found = SentenceTransformer(str(folder / "out"), device="cpu")
    embeddings = found.encode(TEXTS, convert_to_tensor=True)
    torch.testing.assert_close(embeddings.double(), expected, rtol=0, atol=2e-6)
    base = SentenceTransformer(str(folder / "base"), device="cpu")
    assert (base.encode(TEXTS, convert_to_tensor=True) - embeddings).abs().max() > 0.01


def test_encodes_like_the_float64_merge(folder):
    merge(folder)
    assert_encodes_the_merge(folder)
    assert "same" in run("verify", folder / "out").stdout


def test_plan_shows_the_tensors_of_modules(folder):
    merge(folder)
    found = json.loads(run("plan", folder / "r.yaml", "--json").stdout)
    actions = {tensor["name"]: tensor["action"] for tensor in found["tensors"]}
    assert actions["2_Dense/linear.weight"] == "merge"
    assert actions["embeddings.word_embeddings.weight"] == "merge"


def test_parameters_of_a_module(folder):
    weights = [{"filter": "2_Dense", "value": 1.0}, {"value": 0.0}]
    merge(folder, models=[{"model": "a", "parameters": {"weight": weights}}])
    a, base, out = (state(folder / name) for name in ("a", "base", "out"))
    for name in out:
        expected = a if name.startswith("2.") else base
        torch.testing.assert_close(out[name], expected[name], rtol=0, atol=1e-6)


@pytest.mark.parametrize("file", ["2_Dense/model.safetensors", "model.safetensors"])
def test_verify_reads_every_module(folder, file):
    merge(folder)
    tensors = load_file(folder / "out" / file)
    next(iter(tensors.values())).view(-1)[-1] += 1
    save_file(tensors, folder / "out" / file, {"format": "pt"})
    done = run("verify", folder / "out", check=False)
    assert done.returncode == 1
    assert "changed" in done.stdout


def test_shards(folder):
    merge(folder)
    shutil.rmtree(folder / "out")
    run("merge", folder / "r.yaml", folder / "out", "--quiet", "--shard-size", "10KB")
    assert (folder / "out" / "model.safetensors.index.json").exists()
    assert_encodes_the_merge(folder)


def test_other_names_of_the_same_tensors(folder):
    """Prefixes and old names, as older checkpoints have them."""
    file = folder / "a" / "model.safetensors"
    old = {
        "bert."
        + name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): x
        for name, x in load_file(file).items()
    }
    expected = state(folder / "a")
    save_file(old, file, {"format": "pt"})
    merge(folder, models=[{"model": "a", "parameters": {"weight": 1.0}}])
    for name, x in state(folder / "out").items():
        torch.testing.assert_close(x, expected[name], rtol=0, atol=1e-6)


def test_fishers_with_names_in_memory(folder):
    """Fishers of `merganser.fisher` without a model_path."""
    tensors = {}
    for name in ("base", "a", "b"):
        torch.manual_seed(len(tensors))
        model = SentenceTransformer(str(folder / name), device="cpu")
        fisher = {n: torch.rand_like(x) for n, x in model.named_parameters()}
        tensors[name] = fisher
        merganser.FisherResult(
            fisher, estimator="exact", num_examples=10, num_examples_used=10
        ).save(folder / f"{name}.safetensors")
    models = [{"model": n, "fisher": f"{n}.safetensors"} for n in "ab"]
    merge(folder, merge_method="fisher", models=models, base_model=None)
    a, b, out = (state(folder / name) for name in ("a", "b", "out"))
    for name in out:
        f, g = (tensors[n][name].double() for n in "ab")
        expected = (f * a[name] + g * b[name]) / (f + g)
        torch.testing.assert_close(out[name], expected, rtol=1e-5, atol=1e-6)


def test_cross_encoder(folder):
    merge(folder, prefix="cross-")
    pairs = [(x, y) for x in TEXTS for y in TEXTS]
    expected = define_merge(folder, CrossEncoder, "cross-").predict(
        pairs, convert_to_tensor=True
    )
    found = CrossEncoder(str(folder / "out"), device="cpu")
    scores = found.predict(pairs, convert_to_tensor=True)
    torch.testing.assert_close(scores.double(), expected, rtol=0, atol=2e-6)
    assert "same" in run("verify", folder / "out").stdout


# Bad input


def change(file, **values):
    content = json.loads(file.read_text())
    file.write_text(json.dumps(content | values))


def refused(folder, **recipe):
    done = merge(folder, check=False, **recipe)
    assert done.returncode == 2
    assert not (folder / "out").exists()
    return done.stderr


def test_other_pooling(folder):
    change(folder / "a" / "1_Pooling" / "config.json", pooling_mode="cls")
    said = refused(folder)
    assert 'a/1_Pooling/config.json has pooling_mode "cls"' in said
    assert 'has "mean"; models must have modules with the same settings' in said


def test_pooling_of_an_older_version(folder):
    def write(**modes):
        old = {"word_embedding_dimension": 16, "pooling_mode_cls_token": False}
        content = json.dumps(old | {f"pooling_mode_{k}": v for k, v in modes.items()})
        (folder / "a" / "1_Pooling" / "config.json").write_text(content)

    write(mean_tokens=True, max_tokens=False)
    merge(folder)
    shutil.rmtree(folder / "out")
    write(mean_tokens=True, max_tokens=True)
    assert 'has pooling_mode ["max","mean"]' in refused(folder)


def test_other_activation(folder):
    other = "torch.nn.modules.linear.Identity"
    change(folder / "b" / "2_Dense" / "config.json", activation_function=other)
    assert "has activation_function" in refused(folder)


def test_other_modules(folder):
    modules = json.loads((folder / "a" / "modules.json").read_text())
    (folder / "a" / "modules.json").write_text(json.dumps(modules[:3]))
    said = refused(folder)
    assert (
        "has the modules Transformer, Pooling in 1_Pooling, Dense in 2_Dense," in said
    )
    assert "Normalize in 3_Normalize; models must have the same modules" in said


def test_other_width(folder):
    sentence_encoder(folder / "wide", 0, width=5)
    said = refused(folder, models=[{"model": "wide"}])
    assert "out_features 5" in said
    assert "'2_Dense/linear.weight' [5, 16], expected [8, 16]" in said


def test_base_without_modules(folder):
    said = refused(folder, base_model="base-transformer")
    assert "a is a model of sentence-transformers" in said
    assert "base-transformer, whose files the output gets, has no modules.json" in said


def test_transformer_in_a_module(folder):
    """As sentence-transformers before version 2.3 saved it."""
    (folder / "a" / "0_Transformer").mkdir()
    for name in ("config.json", "model.safetensors"):
        (folder / "a" / name).rename(folder / "a" / "0_Transformer" / name)
    modules = json.loads((folder / "a" / "modules.json").read_text())
    modules[0]["path"] = "0_Transformer"
    (folder / "a" / "modules.json").write_text(json.dumps(modules))
    assert "the first module is Transformer in '0_Transformer'" in refused(folder)


def test_dense_as_a_pickle(folder):
    for name in ("base", "a", "b"):
        dense = folder / name / "2_Dense"
        torch.save(load_file(dense / "model.safetensors"), dense / "pytorch_model.bin")
        (dense / "model.safetensors").unlink()
    said = refused(folder)
    assert "only model.safetensors of a module is merged" in said


@pytest.mark.parametrize("text", ["{}", "[", '[{"path": "x"}]'])
def test_damaged_modules(folder, text):
    (folder / "a" / "modules.json").write_text(text)
    assert "modules.json: expected a list of modules" in refused(folder)
