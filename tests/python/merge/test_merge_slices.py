"""Recipes with slices of layers."""

import json
import shutil
import subprocess

import merge_oracle
import numpy
import yaml
from command import executable
from merge_inputs import load_model
from merge_runs import assert_close, run
from safetensors.numpy import save_file

LAYERS = ("encoder.layer.0", "encoder.layer.1")


def test_slices(folder, tmp_path):
    from transformers import AutoModelForSequenceClassification

    recipe = {
        "merge_method": "passthrough",
        "slices": [
            {"sources": [{"model": "a", "layer_range": [0, 3]}]},
            {"sources": [{"model": "b", "layer_range": [1, 4]}]},
        ],
    }
    found = run(folder, recipe, out=tmp_path / "out")
    a, b = load_model(folder / "a"), load_model(folder / "b")
    origin = [(a, 0), (a, 1), (a, 2), (b, 1), (b, 2), (b, 3)]
    for name, values in found.items():
        if ".layer." in name:
            head, _, tail = name.partition(".layer.")
            layer, _, rest = tail.partition(".")
            model, source = origin[int(layer)]
            expected = model[f"{head}.layer.{source}.{rest}"]
        else:
            expected = (a if "embeddings" in name else b)[name]
        assert numpy.array_equal(values, expected), name
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out")
    assert model.config.num_hidden_layers == 6
    assert len(found) == len(model.state_dict())


def test_slices_take_the_entries_of_their_layers(folder, tmp_path):
    """Lists in config.json with one entry per layer follow the slices."""
    shutil.copytree(folder / "a", tmp_path / "a")
    file = tmp_path / "a" / "config.json"
    config = json.loads(file.read_text())
    kinds = ["full", "sliding", "full", "linear"]
    others = {"eos_token_id": [1, 2, 3, 4], "layer_norm_weights": [1, 2]}
    file.write_text(json.dumps(config | {"layer_types": kinds} | others))
    ranges = [[1, 4], [0, 2]]
    model = str(tmp_path / "a")
    recipe = {
        "merge_method": "passthrough",
        "slices": [{"sources": [{"model": model, "layer_range": r}]} for r in ranges],
    }
    run(folder, recipe, out=tmp_path / "out")
    written = json.loads((tmp_path / "out" / "config.json").read_text())
    assert written["num_hidden_layers"] == 5
    assert written["layer_types"] == ["sliding", "full", "linear", "full", "sliding"]
    assert all(written[key] == value for key, value in others.items())


def test_slices_lose_no_tensors(folder, tmp_path):
    """Refuses a head that only the last slice's model has."""
    shutil.copytree(folder / "a", tmp_path / "bare")
    state = load_model(tmp_path / "bare")
    del state["classifier.weight"]
    save_file(state, tmp_path / "bare" / "model.safetensors", {"format": "pt"})
    recipe = {
        "merge_method": "passthrough",
        "slices": [
            {"sources": [{"model": str(tmp_path / "bare"), "layer_range": [0, 3]}]},
            {"sources": [{"model": "b", "layer_range": [1, 4]}]},
        ],
    }
    (folder / "r.yaml").write_text(yaml.safe_dump(recipe))
    process = subprocess.run(
        [executable(), "plan", "r.yaml"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 2
    assert "b has tensor 'classifier.weight', which" in process.stderr


def test_slices_with_a_base_and_depth(folder, tmp_path):
    recipe = {
        "merge_method": "slerp",
        "base_model": "base",
        "slices": [
            {
                "sources": [
                    {"model": "base", "layer_range": [0, 2]},
                    {"model": "a", "layer_range": [2, 4]},
                ]
            }
        ],
        "parameters": {"t": [0.1, 0.9]},
    }
    found = run(folder, recipe, out=tmp_path / "out")
    base, a = load_model(folder / "base"), load_model(folder / "a")
    for name in found:
        if ".layer." not in name:
            continue
        layer = int(name.split(".layer.")[1].split(".")[0])
        other = name.replace(f".layer.{layer}.", f".layer.{layer + 2}.")
        expected = merge_oracle.slerp(
            base[name].astype(float), a[other].astype(float), 0.1 + 0.8 * layer
        )
        assert_close(found[name], expected)


def test_slices_copy_frozen_layers_without_fishers(tmp_path):
    """Layers that no training changed have no Fisher and need none."""
    generator = numpy.random.default_rng(0)

    def numbers():
        return generator.random(3, dtype=numpy.float32)

    frozen = {f"{layer}.frozen": numbers() for layer in ("embeddings", *LAYERS)}
    metadata = {"format_version": "1", "estimator": "exact", "num_examples": "10"}
    metadata |= {"num_examples_used": "10", "samples": "0", "labels": "model"}
    models, fishers = {}, {}
    for name in "ab":
        trained = {f"{layer}.w": numbers() for layer in LAYERS}
        models[name] = frozen | trained
        fishers[name] = {weight: numbers() for weight in trained}
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(
            json.dumps({"model_type": "bert", "num_hidden_layers": 2})
        )
        save_file(models[name], tmp_path / name / "model.safetensors")
        fisher = tmp_path / f"{name}_fisher.safetensors"
        save_file(fishers[name], fisher, metadata | {"seed": "0"})
    slices = [
        [
            {"model": n, "fisher": f"{n}_fisher.safetensors", "layer_range": [i, i + 1]}
            for n in "ab"
        ]
        for i in range(2)
    ]
    recipe = {"merge_method": "fisher", "slices": [{"sources": s} for s in slices]}
    found = run(tmp_path, recipe, out=tmp_path / "out")
    assert found.keys() == models["a"].keys()
    for name, values in found.items():
        if name in frozen:
            assert numpy.array_equal(values, frozen[name])
        else:
            weighted = sum(fishers[n][name] * models[n][name] for n in "ab")
            assert_close(values, weighted / sum(fishers[n][name] for n in "ab"))
