"""tsv_m and iso_c, against their authors' formulas in numpy's float64."""

import json
import subprocess

import merganser
import numpy
import pytest
import torch
from command import executable
from merge_runs import run
from safetensors.numpy import load_file, save_file

LAYER = "encoder.layer.0.attention.self.query.weight"
WIDE = "encoder.layer.0.intermediate.dense.weight"
TALL = "encoder.layer.0.output.dense.weight"
EMPTY = "encoder.layer.1.output.dense.weight"  # which no expert changes
SHAPES = {
    LAYER: (24, 24),
    WIDE: (13, 40),
    TALL: (41, 16),
    EMPTY: (8, 8),
    "encoder.layer.0.attention.self.query.bias": (24,),
    "embeddings.word_embeddings.weight": (30, 24),
    "classifier.weight": (6, 24),
}
SPECTRAL = [LAYER, WIDE, TALL]
EXPERTS = ["a", "b", "c"]


def make(folder, random, low_rank=None, dtype=float):
    base = {name: random.standard_normal(shape) for name, shape in SHAPES.items()}
    models = {"base": base} | {expert: {} for expert in EXPERTS}
    for expert in EXPERTS:
        for name, shape in SHAPES.items():
            tau = 0.1 * random.standard_normal(shape)
            if len(shape) == 2 and low_rank is not None:
                u, s, v = numpy.linalg.svd(tau, full_matrices=False)
                s[low_rank:] = 0
                tau = u * s @ v
            models[expert][name] = base[name] + (0 if name == EMPTY else tau)
    for name, tensors in models.items():
        (folder / name).mkdir()
        (folder / name / "config.json").write_text("{}")
        stored = {key: x.astype(dtype) for key, x in tensors.items()}
        save_file(stored, folder / name / "model.safetensors", {"format": "pt"})
    return models


@pytest.fixture
def random():
    return numpy.random.default_rng(5)


def recipe(method, experts=EXPERTS, **parameters):
    return {
        "merge_method": method,
        "base_model": "base",
        "models": [{"model": name} for name in experts],
        "parameters": parameters,
    }


def polar(x):
    u, _, v = numpy.linalg.svd(x, full_matrices=False)
    return u @ v


def tsv_m(taus):
    """Gargiulo et al., section 3.2, as their algorithm 1."""
    u, s, v = [], [], []
    for tau in taus:
        left, values, right = numpy.linalg.svd(tau, full_matrices=False)
        k = len(values) // len(taus)
        u.append(left[:, :k])
        s.append(values[:k])
        v.append(right[:k].T)
    u, s, v = numpy.hstack(u), numpy.concatenate(s), numpy.hstack(v)
    return polar(u) * s @ polar(v).T


def iso_c(taus):
    """Marczak et al., equation 5: the singular values' mean in place of each."""
    u, s, v = numpy.linalg.svd(sum(taus), full_matrices=False)
    return u * s.mean() @ v


FORMULAS = {"tsv_m": tsv_m, "iso_c": iso_c}


def merged(method, models, name, scale=1.0, experts=EXPERTS):
    taus = [models[expert][name] - models["base"][name] for expert in experts]
    if name in SPECTRAL:
        return models["base"][name] + scale * FORMULAS[method](taus)
    return models["base"][name] + scale * sum(taus) / len(taus)


@pytest.mark.parametrize("method", FORMULAS)
@pytest.mark.parametrize("experts", [EXPERTS, ["b"]])
def test_against_the_authors_formula(tmp_path, random, method, experts):
    models = make(tmp_path, random)
    found = run(tmp_path, recipe(method, experts), out=tmp_path / "out")
    for name in SHAPES:
        expected = merged(method, models, name, experts=experts)
        assert numpy.abs(found[name] - expected).max() < 1e-9, name


def test_one_expert_comes_back(tmp_path, random):
    models = make(tmp_path, random)
    found = run(tmp_path, recipe("tsv_m", ["a"]), out=tmp_path / "out")
    for name, value in models["a"].items():
        assert numpy.abs(found[name] - value).max() < 1e-9, name


@pytest.mark.parametrize("method", FORMULAS)
def test_scales(tmp_path, random, method):
    """lambda by layer and in a sweep, which decomposes once for all its values."""
    models = make(tmp_path, random)
    by_layer = recipe(method) | {"parameters": {"lambda": [0.5, 2]}}
    found = run(tmp_path, by_layer, out=tmp_path / "by_layer")
    scales = {name: 0.5 for name in SHAPES} | {EMPTY: 2}
    for name, scale in scales.items():
        expected = merged(method, models, name, scale)
        assert numpy.abs(found[name] - expected).max() < 1e-9, name
    sweep = recipe(method) | {"parameters": {"lambda": {"sweep": [0.3, 1.7]}}}
    (tmp_path / "r.yaml").write_text(json.dumps(sweep))
    merganser.merge_recipe(tmp_path / "r.yaml", tmp_path / "sweep")
    for scale in (0.3, 1.7):
        found = load_file(tmp_path / f"sweep/lambda={scale}/model.safetensors")
        for name in SHAPES:
            expected = merged(method, models, name, scale)
            assert numpy.abs(found[name] - expected).max() < 1e-9, name


def test_directions_without_a_change(tmp_path, random):
    """Task vectors of low rank, as of LoRA: vectors of singular values that are 0 are
    left out, where a library's SVD returns any."""
    models = make(tmp_path, random, low_rank=2)
    for method in FORMULAS:
        found = run(tmp_path, recipe(method), out=tmp_path / method)
        for name in SPECTRAL:
            taus = [models[e][name] - models["base"][name] for e in EXPERTS]
            if method == "iso_c":
                u, s, v = numpy.linalg.svd(sum(taus), full_matrices=False)
                u[:, 6:] = 0
                expected = u * s.mean() @ v
            else:
                parts = [numpy.linalg.svd(tau, full_matrices=False) for tau in taus]
                u, s, v = (
                    numpy.hstack([left[:, :2] for left, _, _ in parts]),
                    numpy.concatenate([values[:2] for _, values, _ in parts]),
                    numpy.hstack([right[:2].T for _, _, right in parts]),
                )
                expected = polar(u) * s @ polar(v).T
            error = found[name] - models["base"][name] - expected
            assert numpy.abs(error).max() < 1e-6, (method, name)


@pytest.mark.parametrize("method", FORMULAS)
def test_the_same_bytes(tmp_path, random, method):
    """Any number of threads and Python's merge in memory give the same bytes."""
    make(tmp_path, random, dtype=numpy.float32)
    run(tmp_path, recipe(method), "--threads", "1", out=tmp_path / "one")
    run(tmp_path, recipe(method), "--threads", "3", out=tmp_path / "three")
    one, three = (tmp_path / n / "model.safetensors" for n in ("one", "three"))
    assert one.read_bytes() == three.read_bytes()
    state = {
        name: {
            key: torch.from_numpy(x)
            for key, x in load_file(tmp_path / name / "model.safetensors").items()
        }
        for name in ["base", *EXPERTS]
    }
    found = merganser.merge(state["base"], [state[e] for e in EXPERTS], method=method)
    for name, value in load_file(one).items():
        assert found[name].numpy().tobytes() == value.tobytes(), name


def test_plan(tmp_path, random):
    make(tmp_path, random)
    (tmp_path / "r.yaml").write_text(json.dumps(recipe("tsv_m")))

    def plan(*arguments):
        command = [executable(), "plan", "r.yaml", *arguments]
        return subprocess.check_output(command, cwd=tmp_path, text=True)

    text = plan()
    rows = [line for line in text.splitlines() if "by singular vectors" in line]
    assert [row.split()[0] for row in rows] == sorted([*SPECTRAL, EMPTY])
    one, two = (json.loads(plan("--json", "--threads", n))["peak_memory"] for n in "12")
    largest = 41 * 16 * 8
    assert two - one > 4 * largest  # every thread has a layer


def test_nan(tmp_path, random):
    make(tmp_path, random)
    path = tmp_path / "b" / "model.safetensors"
    state = load_file(path)
    state[WIDE][0, 3] = numpy.nan
    save_file(state, path, {"format": "pt"})
    (tmp_path / "r.yaml").write_text(json.dumps(recipe("iso_c")))
    process = subprocess.run(
        [executable(), "merge", "r.yaml", "out", "--quiet"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 2
    assert f"'{WIDE}' is nan at index 3; the weights of a linear layer must be" in (
        process.stderr.replace("\n  ", " ")
    )
    assert not (tmp_path / "out").exists()
