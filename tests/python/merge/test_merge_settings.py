"""Recipes whose settings depend on the tensor, and sweeps over them."""

import json
import shutil
import subprocess

import numpy
import pytest
import yaml
from command import executable
from merge_inputs import load_model
from merge_runs import assert_close, models_of, run
from safetensors.numpy import save_file


def test_settings_of_tensors(folder, tmp_path):
    recipe = {
        "merge_method": "task_arithmetic",
        "base_model": "base",
        "models": [
            {
                "model": "a",
                "parameters": {
                    "weight": [
                        {"filter": "attention", "value": [0, 0.3, 0.9]},
                        {"filter": "embeddings", "value": 0.25},
                        {"value": 2},
                    ]
                },
            }
        ],
    }
    found = run(folder, recipe, out=tmp_path / "out")
    base, a = load_model(folder / "base"), load_model(folder / "a")
    interpolated = numpy.interp([0, 1 / 3, 2 / 3, 1], [0, 0.5, 1], [0, 0.3, 0.9])
    for name in base:
        if "attention" in name:
            weight = interpolated[int(name.split("layer.")[1].split(".")[0])]
        else:
            weight = 0.25 if "embeddings" in name else 2
        expected = base[name] + weight * (a[name].astype(float) - base[name])
        assert_close(found[name], expected)


@pytest.mark.parametrize(
    "text",
    [
        "merge_method: ties\nbase_model: base\nmodels:\n"
        "  - &a {model: a, parameters: &p {weight: 0.5, density: 0.25}}\n"
        "  - {<<: *a, model: b, parameters: {weight: 0.75, <<: *p}}\n"
        "  - model: b\n    parameters:\n      <<: [{density: 0.5}, *p]\n",
        "merge_method: linear\nbase_model: ~\nparameters:\nslices:\ndtype: null\n"
        "models:\n  - model: a\n    parameters:\n  - model: b\n    parameters: {}\n",
    ],
)
def test_recipes_read_as_by_pyyaml(folder, text):
    """Merge keys and keys without a value, resolved by PyYAML or by Merganser."""

    def plan(text):
        (folder / "r.yaml").write_text(text)
        command = [executable(), "plan", "r.yaml", "--json"]
        return json.loads(subprocess.check_output(command, cwd=folder))

    resolved = yaml.safe_load(text)
    for key in [key for key, value in resolved.items() if value is None]:
        del resolved[key]
    for model in resolved["models"]:
        model["parameters"] = model["parameters"] or {"weight": 1}
    expected = plan(json.dumps(resolved))
    found = plan(text)
    for model in expected["models"]:
        model["weight"] = model["weight"] or "1"
    for model in found["models"]:
        model["weight"] = model["weight"] or "1"
    assert found == expected


def test_sweep(folder, tmp_path):
    def recipe(weight):
        return {
            "merge_method": "task_arithmetic",
            "base_model": "base",
            "models": [{"model": "a"}, {"model": "b"}],
            "parameters": {"weight": weight},
        }

    (folder / "r.yaml").write_text(yaml.safe_dump(recipe({"sweep": [0.2, 0.4]})))
    command = [executable(), "merge", "r.yaml", str(tmp_path / "out"), "--json"]
    report = json.loads(subprocess.check_output(command, cwd=folder))
    whole = 3 * sum(x.nbytes for x in load_model(folder / "base").values())
    assert report["bytes_read"] == whole  # read once, for both
    for weight in (0.2, 0.4):
        alone = run(folder, recipe(weight), out=tmp_path / str(weight))
        swept = load_model(tmp_path / "out" / f"weight={weight}")
        assert all(swept[k].tobytes() == alone[k].tobytes() for k in alone)
        assert (
            subprocess.run(
                [executable(), "verify", tmp_path / "out" / f"weight={weight}", "-q"],
                cwd=folder,
                check=False,
            ).returncode
            == 0
        )


def test_a_plan_names_the_outputs_of_a_sweep(folder):
    recipe = {
        "merge_method": "linear",
        "models": models_of(weight={"sweep": [0.2, 0.4]}),
    }
    (folder / "r.yaml").write_text(yaml.safe_dump(recipe))
    command = [executable(), "plan", "r.yaml"]
    text = subprocess.check_output(command, cwd=folder, text=True)
    assert "2 models, in 1, 2\n" in text
    plan = json.loads(subprocess.check_output([*command, "--json"], cwd=folder))
    assert plan["outputs"] == ["1", "2"]
    written = sum(tensor["bytes_written"] for tensor in plan["tensors"])
    assert written == plan["bytes_written"]


@pytest.mark.parametrize("seed", [1.5, [1, 2], -1])
def test_seeds_are_whole_numbers(folder, seed):
    recipe = {
        "merge_method": "dare_linear",
        "base_model": "base",
        "models": models_of(density=0.5),
        "parameters": {"seed": seed},
    }
    (folder / "r.yaml").write_text(yaml.safe_dump(recipe))
    command = [executable(), "plan", "r.yaml"]
    process = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False
    )
    assert process.returncode == 2
    assert "seed" in process.stderr


def test_the_first_model_gives_the_types(folder, tmp_path):
    for name, dtype in (("z", numpy.float32), ("h", numpy.float16)):
        shutil.copytree(folder / "a", tmp_path / name)
        state = {k: v.astype(dtype) for k, v in load_model(folder / "a").items()}
        save_file(state, tmp_path / name / "model.safetensors", {"format": "pt"})
    models = [{"model": str(tmp_path / name)} for name in ("z", "h")]
    for order, dtype in ((1, numpy.float32), (-1, numpy.float16)):
        recipe = {"merge_method": "linear", "models": models[::order]}
        found = run(folder, recipe, out=tmp_path / f"out{order}")
        assert {value.dtype.type for value in found.values()} == {dtype}
