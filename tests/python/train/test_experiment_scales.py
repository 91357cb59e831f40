"""merganser run with merges that use the scales of calibrated Fishers."""

import re

import merganser
import pytest
import tiny_experiment
import torch
from command import run
from safetensors.torch import load_file
from tiny_experiment import YAML

pytestmark = pytest.mark.slow

EXPERTS = ["amazon", "nyt"]
DATA = {"base": "movie", **dict(zip(EXPERTS, EXPERTS, strict=True))}
OF_EXPERTS = "  - {name: a, method: fisher, parameters: {fisher_scale: auto}}\n"
OF_ALL = (
    "  - {name: b, method: gradient_matching, experts: [nyt], weight: 0.5,"
    " parameters: {fisher_scale: auto, base_fisher_scale: auto}}\n"
)
REMOVAL = """\
removal:
  data: nyt
  merges:
    - {name: r, method: removal, weight: 0.5, parameters: {fisher_scale: auto}}
"""


def stages(done):
    """Stages that ran."""
    return set(re.findall(r"^(.+?) +done\b", done.stderr, re.MULTILINE))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """An experiment that ran without scales, with the experts', with the base's too,
    and once more."""
    folder = tmp_path_factory.mktemp("scales")
    path = tiny_experiment.make(folder)
    ran = []
    for more in ("", OF_EXPERTS, OF_EXPERTS + OF_ALL, OF_EXPERTS + OF_ALL):
        path.write_text(YAML.replace("output:", more + "output:"))
        ran.append(stages(run("run", path, folder / "out")))
    return folder, ran


def calibrated(folder, name):
    path = folder / "out" / "calibrated" / f"{name}.safetensors"
    return merganser.FisherResult.load(path)


def scale(folder, name):
    return calibrated(folder, name).scale.scale.value


def test_stages(finished):
    """Fishers are calibrated where a merge uses their scale; no other stage reruns."""
    without, experts, base, again = finished[1]
    assert not {stage for stage in without if stage.startswith("calibrate")}
    assert experts == {
        *("average", "calibrate amazon", "calibrate nyt"),
        *("merge a", "evaluate a", "comparisons"),
    }
    assert base == {"calibrate base", "merge b", "evaluate b", "comparisons"}
    assert not again


def test_average(finished):
    """The path ends at the plain average of all experts."""
    average = state(finished[0], "calibrated/average")
    linear = state(finished[0], "merges/linear/model")
    assert average.keys() == linear.keys()
    assert all(torch.equal(x, linear[name]) for name, x in average.items())


@pytest.mark.parametrize("name", DATA)
def test_scales_are_those_of_the_command(finished, tmp_path, name):
    folder = finished[0]
    out = folder / "out"
    run(
        *("calibrate", "--fisher", out / "fishers" / f"{name}.safetensors"),
        *("--model", out / "models" / name, "--merge", out / "merges/linear/model"),
        *("--data", folder / f"{DATA[name]}-train.jsonl", "--limit", 20),
        *("--seed", 3, "--max-length", 12, "--out", tmp_path / "fisher.safetensors"),
    )
    found = (out / "calibrated" / f"{name}.safetensors").read_bytes()
    assert found == (tmp_path / "fisher.safetensors").read_bytes()


def state(folder, path):
    tensors = load_file(folder / "out" / path / "model.safetensors")
    return {name: x.double() for name, x in tensors.items()}


def test_merges(finished):
    """docs/method.md, section 2, with c N F in place of N F."""
    folder = finished[0]
    models = {name: state(folder, f"models/{name}") for name in DATA}
    found = {name: state(folder, f"merges/{name}/model") for name in "ab"}
    fishers = {name: calibrated(folder, name) for name in DATA}
    differs = False
    for key, base in models["base"].items():

        def precision(name, key=key):
            fisher = fishers[name]
            return scale(folder, name) * fisher.num_examples * fisher[key].double()

        h0, h = precision("base") + 1e-12, {name: precision(name) for name in EXPERTS}
        whole = h["amazon"] + h["nyt"]
        mean = sum(h[name] * models[name][key] for name in EXPERTS) / whole
        plain = sum(models[name][key] for name in EXPERTS) / 2
        expected = torch.where(whole > 0, mean, plain)
        torch.testing.assert_close(found["a"][key], expected, rtol=1e-4, atol=1e-6)
        step = 0.5 * (h0 + h["nyt"]) * (models["nyt"][key] - base)
        expected = base + step / (h0 + 0.5 * h["nyt"])
        torch.testing.assert_close(found["b"][key], expected, rtol=1e-4, atol=1e-6)
        differs |= not torch.allclose(found["a"][key], plain, atol=1e-3)
    assert differs


def test_recipe_can_be_merged_by_hand(finished, tmp_path):
    merge = finished[0] / "out" / "merges" / "b"
    run("merge", merge / "recipe.yaml", tmp_path / "b")
    by_hand = (tmp_path / "b" / "model.safetensors").read_bytes()
    assert by_hand == (merge / "model" / "model.safetensors").read_bytes()


@pytest.mark.parametrize("parameter", ["fisher_scale", "base_fisher_scale"])
def test_removal_has_no_way(finished, tmp_path, parameter):
    folder = finished[0]
    text = YAML + REMOVAL.replace("fisher_scale", parameter)
    path = folder / "removal.yaml"
    path.write_text(text)
    done = run("run", path, tmp_path / "out", check=False)
    assert done.returncode == 2
    message = done.stderr.replace("\n  ", " ")
    assert f"set {parameter} to a number" in message
    assert not (tmp_path / "out").exists()
