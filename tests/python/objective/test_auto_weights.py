"""weight: auto of task_arithmetic, the weights that a subspace Fisher of one group
gives."""

import json

import command
import merganser
import pytest
import torch
import training_inputs
import yaml
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification

TASKS = {"one": 40, "two": 33}
BASE = 20


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A base, two experts with other weights, and subspace Fishers of both."""
    folder = tmp_path_factory.mktemp("auto")
    training_inputs.make_experts(folder, TASKS, BASE)
    for groups in ("block", "global"):
        command.run(
            *("subspace", "--base", folder / "base", "--max-length", "24", "-q"),
            *("--base-data", folder / "base.jsonl", "--groups", groups),
            *("--expert", folder / "one", "--data", folder / "one.jsonl"),
            *("--expert", folder / "two", "--data", folder / "two.jsonl"),
            *("--out", folder / f"{groups}.safetensors"),
        )
    return folder


def recipe(folder, path, groups="block", **changes):
    given = {
        "merge_method": "task_arithmetic",
        "base_model": str(folder / "base"),
        "subspace": str(folder / f"{groups}.safetensors"),
        "models": [{"model": str(folder / name)} for name in TASKS],
        "parameters": {"weight": "auto"},
        **changes,
    }
    path.write_text(yaml.safe_dump(given))
    return path


def merged(path, out):
    command.run("merge", path, out, "-q")
    return load_file(out / "model.safetensors")


def plan(path):
    return json.loads(command.run("plan", path, "--json").stdout)


def chosen_shrink(path):
    (note,) = (n for n in plan(path)["notes"] if n.startswith("shrink"))
    return float(note.split(";")[0].removeprefix("shrink "))


def solve(folder, shrink):
    """The weights from sums over the columns of each expert, in float64."""
    file = load_file(folder / "block.safetensors")
    width = file["base.fisher"].shape[-1]
    whole = torch.zeros(width, len(TASKS), dtype=torch.float64)
    for t in range(len(TASKS)):
        whole[t * width // 2 : (t + 1) * width // 2, t] = 1
    a = whole.T @ file["base.fisher"].sum(0) @ whole
    b = torch.zeros(len(TASKS), dtype=torch.float64)
    for t in range(len(TASKS)):  # N equals the number of examples used
        h = whole.T @ file[f"experts.{t}.fisher"].sum(0) @ whole
        a += h
        b += h[:, t] - whole.T @ file[f"experts.{t}.gradient"].sum(0)
    a = (1 - shrink) * a + shrink * torch.diag(a.diagonal())
    return torch.linalg.solve(a, b)


def test_equals_the_solution_in_float64(folder, tmp_path):
    path = recipe(folder, tmp_path / "r.yaml")
    weights = solve(folder, chosen_shrink(path))
    shown = [float(model["weight"]) for model in plan(path)["models"]]
    assert shown == pytest.approx(weights.tolist(), abs=1e-4)
    base = load_file(folder / "base" / "model.safetensors")
    experts = [load_file(folder / name / "model.safetensors") for name in TASKS]
    for name, x in merged(path, tmp_path / "out").items():
        step = sum(
            w * (expert[name].double() - base[name].double())
            for w, expert in zip(weights, experts, strict=True)
        )
        torch.testing.assert_close(x.double(), base[name] + step, rtol=0, atol=1e-6)


def test_equals_subspace_gradient_matching_of_one_group(folder, tmp_path):
    of = {"groups": "global", "parameters": {}}
    method = "subspace_gradient_matching"
    path = recipe(folder, tmp_path / "s.yaml", merge_method=method, **of)
    expected = merged(path, tmp_path / "subspace")
    for groups in ("global", "block"):
        path = recipe(folder, tmp_path / f"{groups}.yaml", groups)
        found = merged(path, tmp_path / groups)
        for name, x in expected.items():
            torch.testing.assert_close(found[name], x, rtol=0, atol=1e-6)


def test_lambda_and_normalize_apply_to_the_weights(folder, tmp_path):
    weights = solve(folder, chosen_shrink(recipe(folder, tmp_path / "r.yaml")))
    weights = 0.5 * weights / weights.sum()
    given = [
        {"model": str(folder / name), "parameters": {"weight": float(w)}}
        for name, w in zip(TASKS, weights, strict=True)
    ]
    path = recipe(folder, tmp_path / "given.yaml", models=given, parameters={})
    expected = merged(path, tmp_path / "given")
    parameters = {"weight": "auto", "normalize": True, "lambda": 0.5}
    path = recipe(folder, tmp_path / "auto.yaml", parameters=parameters)
    for name, x in merged(path, tmp_path / "auto").items():
        torch.testing.assert_close(x, expected[name], rtol=0, atol=1e-6)


@pytest.mark.filterwarnings("ignore:the subspace Fisher has too few examples")
@pytest.mark.parametrize("weights", ["auto", ["auto", "auto"]])
def test_memory_equals_a_recipe(folder, tmp_path, weights):
    expected = merged(recipe(folder, tmp_path / "r.yaml"), tmp_path / "out")
    base, *models = (
        AutoModelForSequenceClassification.from_pretrained(folder / name)
        for name in ("base", *TASKS)
    )
    found = merganser.merge(
        base,
        models,
        method="task_arithmetic",
        weights=weights,
        subspace=folder / "block.safetensors",
    )
    assert all(torch.equal(found[name], x) for name, x in expected.items())


def one_of(folder, **parameters):
    return [
        {"model": str(folder / "one"), "parameters": parameters},
        {"model": str(folder / "two"), "parameters": {"weight": 1}},
    ]


def test_refusals(folder, tmp_path):
    slices = [{"sources": [{"model": str(folder / "one"), "layer_range": [0, 1]}]}]
    layers = {"weight": [{"filter": "attention", "value": "auto"}, {"value": 1}]}
    for changes, message in [
        ({"subspace": None}, "weight: auto needs the key subspace"),
        ({"merge_method": "ties"}, "the method ties does not take weight: auto"),
        ({"merge_method": "ties"}, "available: task_arithmetic"),
        ({"models": one_of(folder, weight="auto")}, "expected it for all"),
        ({"parameters": layers}, "expected it for all"),
        ({"models": None, "slices": slices}, "expects models, got slices"),
        ({"heads": "base"}, "weight: auto expects whole models and heads: merge"),
    ]:
        path = recipe(folder, tmp_path / "r.yaml", **changes)
        done = command.run("plan", path, check=False)
        assert done.returncode == 2
        assert message in done.stderr
    state = {"x": torch.ones(2)}
    for arguments, message in [
        ({"method": "task_arithmetic"}, "weight: auto needs a subspace Fisher"),
        ({"method": "linear"}, "linear does not take weight: auto"),
    ]:
        with pytest.raises(merganser.InputError, match=message):
            merganser.merge(state, [state, state], weights="auto", **arguments)
