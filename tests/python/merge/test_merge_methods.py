"""Methods with sparse task vectors and methods of whole tensors, on files."""

import json
import shutil
import subprocess

import merge_inputs
import merge_oracle
import numpy
import pytest
import yaml
from command import executable
from merge_inputs import load_model
from merge_runs import WEIGHTS, assert_close, models_of, run
from repository import ROOT
from safetensors.numpy import load_file, save_file

SPARSE = {
    "ties": {"density": 0.3},
    "dare_linear": {"density": 0.6, "seed": 3},
    "dare_ties": {"density": 0.4, "lambda": 1.5},
    "breadcrumbs": {"density": 0.7, "gamma": 0.1},
    "breadcrumbs_ties": {"density": 0.5, "gamma": 0.05, "normalize": True},
    "della": {"density": 0.5, "epsilon": 0.2},
    "della_linear": {"density": 0.7, "epsilon": 0.1, "rescale": False},
    "model_stock": {},
}


@pytest.mark.parametrize("method", SPARSE)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_against_the_definition(folder, tmp_path, method, dtype):
    parameters = SPARSE[method]
    recipe = {
        "merge_method": method,
        "base_model": "base",
        "models": models_of(),
        "parameters": parameters,
        "dtype": dtype,
    }
    found = run(folder, recipe, out=tmp_path / "out")
    base, a, b = (load_model(folder / name) for name in ("base", "a", "b"))
    for name in base:
        expected = merge_oracle.merge(
            method,
            name,
            base[name],
            [a[name], b[name]],
            list(WEIGHTS.values()),
            **parameters,
        )
        assert_close(found[name], expected)


@pytest.mark.parametrize("method", SPARSE)
def test_not_finite_where_it_is_dropped(folder, tmp_path, method):
    """Every input is checked, even if the output does not depend on it."""
    for name in ("base", "a", "b"):
        shutil.copytree(folder / name, tmp_path / name)
    weights = tmp_path / "a" / "model.safetensors"
    state = load_model(tmp_path / "a")
    name = "classifier.weight"
    state[name].reshape(-1)[5] = numpy.nan
    save_file(state, weights, {"format": "pt"})
    recipe = {
        "merge_method": method,
        "base_model": "base",
        "models": models_of(),
        "parameters": {"density": 0, "epsilon": 0},
    }
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(recipe))
    process = subprocess.run(
        [executable(), "merge", "r.yaml", "out", "--quiet"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 2
    assert f"tensor '{name}' is nan at index 5" in process.stderr
    assert not (tmp_path / "out").exists()


def test_della_of_density_0_is_the_base(folder, tmp_path):
    recipe = {
        "merge_method": "della",
        "base_model": "base",
        "models": models_of(density=0),
    }
    found = run(folder, recipe, out=tmp_path / "out")
    for name, value in load_model(folder / "base").items():
        assert numpy.array_equal(found[name], value)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "step", [2**-20, 0.25]
)  # exact differences, many of them equal
def test_della_of_long_rows(tmp_path, dtype, step):
    """Rows longer than a chunk are ranked without sorting."""
    shapes = {"one": (100_003,), "some": (3, 2, 20_000)}
    for name in ("base", "a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
        tensors = {
            key: (step * numpy.round(numpy.random.standard_normal(shape) / step))
            for key, shape in shapes.items()
        }
        tensors = {key: x.astype(dtype) for key, x in tensors.items()}
        save_file(tensors, tmp_path / name / "model.safetensors")
    recipe = {
        "merge_method": "della_linear",
        "base_model": "base",
        "models": models_of(),
        "parameters": {"density": 0.4, "epsilon": 0.4, "seed": 1},
    }
    found = run(tmp_path, recipe, "--threads", "3", out=tmp_path / "out")
    base, a, b = (load_model(tmp_path / name) for name in ("base", "a", "b"))
    for name in shapes:
        expected = merge_oracle.merge(
            "della_linear",
            name,
            base[name],
            [a[name], b[name]],
            list(WEIGHTS.values()),
            **recipe["parameters"],
        )
        assert_close(found[name], expected)


@pytest.mark.parametrize("method", ["fisher", "gradient_matching"])
def test_normalized_fishers(folder, tmp_path, method):
    made = json.loads(merge_inputs.recipe(method))
    for model in made["models"]:
        model["num_examples"] = 10**6  # unused
    made["parameters"] = {"delta": 0, "normalize_fishers": True}
    found = run(folder, made, "--threads", "1", out=tmp_path / "out")
    run(folder, made, "--threads", "3", out=tmp_path / "three")
    base, a, b = (load_model(folder / name) for name in ("base", "a", "b"))
    h = {}
    for name in ("base", "a", "b"):
        f = load_file(folder / f"{name}_fisher.safetensors")
        mean = numpy.concatenate([x.reshape(-1).astype(float) for x in f.values()])
        h[name] = {key: x.astype(float) / mean.mean() for key, x in f.items()}
    wa, wb = merge_inputs.WEIGHTS.values()
    for key, value in found.items():
        h0, ha, hb = (h[name][key] for name in ("base", "a", "b"))
        ta, tb = a[key] - base[key].astype(float), b[key] - base[key].astype(float)
        if method == "fisher":
            expected = (wa * ha * a[key] + wb * hb * b[key]) / (wa * ha + wb * hb)
        else:
            update = wa * (h0 + ha) * ta + wb * (h0 + hb) * tb
            expected = base[key] + update / (h0 + wa * ha + wb * hb)
        assert_close(value, expected)
    one, three = (tmp_path / name / "model.safetensors" for name in ("out", "three"))
    assert one.read_bytes() == three.read_bytes()


def test_weights_that_cancel(folder, tmp_path):
    """Divides by the weights that agree, never by their sum."""
    recipe = {
        "merge_method": "ties",
        "base_model": "base",
        "models": [
            {"model": name, "parameters": {"weight": weight}}
            for name, weight in (("a", 1), ("b", -1))
        ],
    }
    found = run(folder, recipe, out=tmp_path / "out")
    base, a, b = (load_model(folder / name) for name in ("base", "a", "b"))
    for name in base:
        expected = merge_oracle.merge(
            "ties", name, base[name], [a[name], b[name]], [1, -1]
        )
        assert_close(found[name], expected)


@pytest.mark.parametrize("t", [0, 0.3, 1])
def test_slerp(folder, tmp_path, t):
    recipe = {
        "merge_method": "slerp",
        "base_model": "base",
        "models": [{"model": "base"}, {"model": "a"}],  # as mergekit's users write
        "parameters": {"t": t},
    }
    found = run(folder, recipe, out=tmp_path / "out")
    base, a = load_model(folder / "base"), load_model(folder / "a")
    for name in base:
        assert_close(
            found[name],
            merge_oracle.slerp(base[name].astype(float), a[name].astype(float), t),
        )


@pytest.mark.parametrize("method", ["ties", "dare_ties", "della", "linear"])
def test_the_same_bytes(folder, tmp_path, method):
    """Bytes do not depend on threads, memory or the order of models."""
    recipe = {
        "merge_method": method,
        "base_model": "base",
        "models": models_of(),
        "parameters": {"density": 0.5, "rescale": True},
    }
    run(folder, recipe, "--threads", "1", out=tmp_path / "one")
    expected = (tmp_path / "one" / "model.safetensors").read_bytes()
    start = expected.index(b"}")  # the header holds the recipe
    for i, arguments in enumerate([["--threads", "3"], ["--memory", "12MiB"]]):
        run(folder, recipe, *arguments, out=tmp_path / str(i))
        assert (tmp_path / str(i) / "model.safetensors").read_bytes() == expected
    recipe["models"] = recipe["models"][::-1]
    turned = run(folder, recipe, out=tmp_path / "turned")
    first = load_model(tmp_path / "one")
    assert start and all(
        turned[name].tobytes() == first[name].tobytes() for name in first
    )


def test_methods_command():
    names = {
        method["name"]
        for method in json.loads(
            subprocess.check_output([executable(), "methods", "--json"])
        )
    }
    assert {"ties", "gradient_matching", "passthrough"} <= names
    document = ROOT / "docs" / "recipes.md"
    if document.exists():  # else the tests run outside of the repository
        tables = subprocess.check_output([executable(), "methods", "--markdown"])
        assert tables.decode() in document.read_text(encoding="utf-8")
