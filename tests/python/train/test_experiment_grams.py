"""merganser run with merges that use Gram matrices."""

import json
import re

import merganser
import pytest
import tiny_experiment
import torch
from command import run
from merganser._C import Dataset, draw_subset
from safetensors.torch import load_file
from tiny_experiment import MERGES, YAML
from transformers import AutoModelForSequenceClassification

pytestmark = pytest.mark.slow

REGMEAN = "  - {name: regmean, method: regmean}\n"
TASK_VECTORS = "  - {name: free, method: regmean, gram: task_vectors}\n"
BLOCK = "  - {name: block, method: block_gradient_matching, weight: 0.5}\n"
EXPERTS = ["amazon", "nyt"]
LAYER = "bert.encoder.layer.1.output.dense.weight"


def stages(done):
    """Stages that ran."""
    return set(re.findall(r"^(.+?) +done\b", done.stderr, re.MULTILINE))


def stored(out):
    return {path.name: path.read_text() for path in (out / ".stages").glob("*.json")}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """An experiment that ran without, then with regmean, then with both."""
    folder = tmp_path_factory.mktemp("grams")
    path = tiny_experiment.make(folder)
    runs = []
    for more in ("", REGMEAN, REGMEAN + BLOCK):
        path.write_text(YAML.replace("output:", more + "output:"))
        done = run("run", path, folder / "out")
        runs.append({"stages": stages(done), "stored": stored(folder / "out")})
        runs[-1]["grams"] = {p.stem for p in (folder / "out/grams").glob("*")}
    return folder, runs


@pytest.fixture
def folder(finished):
    return finished[0]


def test_stages(finished):
    """Grams are collected where a merge uses them; no other stage runs again."""
    without, regmean, both = finished[1]
    assert not without["grams"] and "merge linear" in without["stages"]
    assert regmean["grams"] == set(EXPERTS)
    assert regmean["stages"] == {
        *(f"gram {name}" for name in EXPERTS),
        *("merge regmean", "evaluate regmean", "comparisons"),
    }
    assert both["grams"] == {"base", *EXPERTS}
    assert both["stages"] == {
        *("gram base", "merge block", "evaluate block", "comparisons"),
    }
    for name, text in without["stored"].items():
        if name not in ("comparisons.json", "hashes.json"):
            assert both["stored"][name] == text


def test_inputs_of_other_stages(folder):
    """A run that an earlier version began is continued, not repeated."""

    def keys(stage):
        path = folder / "out" / ".stages" / f"{stage}.json"
        return json.loads(path.read_text())["inputs"]

    assert list(keys("merge-gradient_matching")) == [
        *("program", "recipe", "base", "base_fisher", "models"),
    ]
    assert list(keys("merge-gradient_matching")["models"][0]) == ["model", "fisher"]
    assert list(keys("merge-block")["models"][0]) == ["model", "fisher", "gram"]
    assert list(keys("fisher-base")) == [
        *("program", "model", "data", "max_length", "estimator", "samples"),
        *("limit", "seed", "batch_size", "bfloat16"),
    ]


@pytest.mark.parametrize(
    "name, data",
    [("base", "movie"), *((name, name) for name in EXPERTS)],
)
def test_grams_of_the_examples_of_the_fisher(folder, name, data):
    path = folder / "out" / "models" / name
    file = folder / f"{data}-train.jsonl"
    ids = Dataset.load(file, path, max_length=12, num_labels=2).ids
    model = AutoModelForSequenceClassification.from_pretrained(path)
    batches = [
        {"input_ids": torch.tensor([ids[i]])} for i in draw_subset(len(ids), 20, 3)
    ]
    expected = merganser.gram(model, batches, model_path=path)
    found = merganser.GramResult.load(folder / "out/grams" / f"{name}.safetensors")
    fisher = merganser.FisherResult.load(folder / "out/fishers" / f"{name}.safetensors")
    assert found.num_examples == fisher.num_examples == len(ids)
    assert found.num_examples_used == fisher.num_examples_used == 20
    assert found.base_model_hash == expected.base_model_hash
    assert found.keys() == expected.keys()
    for key, matrix in expected.items():
        assert (found[key] - matrix).norm() < 1e-5 * matrix.norm(), key


def curvature(folder, name, off_diagonal=1.0):
    """N times the mean, in float64."""
    grams = merganser.GramResult.load(folder / "out/grams" / f"{name}.safetensors")
    matrix = grams[LAYER].double() * grams.num_examples
    return off_diagonal * matrix + (1 - off_diagonal) * matrix.diag().diag()


def weight(folder, path):
    return load_file(folder / "out" / path / "model.safetensors")[LAYER].double()


def test_merges(folder):
    """docs/method.md, section 2."""
    base = weight(folder, "models/base")
    experts = [weight(folder, f"models/{name}") for name in EXPERTS]
    eye = torch.eye(len(curvature(folder, "base")), dtype=torch.float64)

    grams = [curvature(folder, name, 0.9) / 2 for name in EXPERTS]
    ridge = 1e-4 * sum(grams).diag().mean()
    grams = [gram + ridge * eye / 2 for gram in grams]
    pairs = list(zip(experts, grams, strict=True))
    expected = sum(w @ g for w, g in pairs) @ sum(grams).inverse()
    found = weight(folder, "merges/regmean/model")
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-6)

    grams = [curvature(folder, name) for name in EXPERTS]
    h0 = curvature(folder, "base")
    whole = h0 + 0.5 * sum(grams)
    ridge = 1e-4 * whole.diag().mean() * eye
    step = sum(
        0.5 * (w - base) @ (h0 + ridge + g) for w, g in zip(experts, grams, strict=True)
    )
    expected = base + step @ (whole + ridge).inverse()
    found = weight(folder, "merges/block/model")
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_recipes_can_be_merged_by_hand(folder, tmp_path):
    for name in ("regmean", "block"):
        merge = folder / "out" / "merges" / name
        run("merge", merge / "recipe.yaml", tmp_path / name)
        by_hand = (tmp_path / name / "model.safetensors").read_bytes()
        assert by_hand == (merge / "model" / "model.safetensors").read_bytes()


def test_results(folder):
    models = json.loads((folder / "out/results.json").read_text())["models"]
    merges = [model["name"] for model in models if model["kind"] == "merge"]
    assert merges == [*MERGES, "regmean", "block"]


def test_task_vectors(tmp_path):
    """No Gram matrix is collected; the merge is that of the recipe."""
    path = tiny_experiment.make(tmp_path)
    path.write_text(YAML.replace("output:", TASK_VECTORS + "output:"))
    run("run", path, tmp_path / "out")
    assert not (tmp_path / "out" / "grams").exists()
    recipe = tmp_path / "out" / "merges" / "free" / "recipe.yaml"
    assert recipe.read_text().count("gram: task_vectors") == len(EXPERTS)
    other = YAML.replace(
        "output:", TASK_VECTORS.replace("regmean", "linear") + "output:"
    )
    path.write_text(other)
    done = run("run", path, tmp_path / "out", check=False)
    assert done.returncode == 2
    assert "expected task_vectors, and a method with Gram matrices" in (
        done.stderr.replace("\n  ", " ")
    )
