"""merganser.subspace_fisher against the executable's file, merges in memory against
recipes."""

import json
import shutil

import command
import merganser
import pytest
import torch
import training_inputs
import yaml
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer

TASKS = {"one": 40, "two": 33}
BASE = 20


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A base, two experts with other weights, their data and the executable's file."""
    folder = tmp_path_factory.mktemp("subspace")
    with torch.random.fork_rng():
        torch.manual_seed(0)  # the same base whatever tests ran before
        training_inputs.make_experts(folder, TASKS, BASE)
    command.run(
        *("subspace", "--base", folder / "base", "--base-data", folder / "base.jsonl"),
        *(
            option
            for name in TASKS
            for option in (
                "--expert",
                folder / name,
                "--data",
                folder / f"{name}.jsonl",
            )
        ),
        *("--max-length", "24", "--out", folder / "subspace.safetensors", "-q"),
    )
    return folder


def read(folder, name):
    lines = (folder / f"{name}.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def collator(folder):
    tokenizer = AutoTokenizer.from_pretrained(folder / "base")

    def collate(examples):
        batch = tokenizer(
            [example["text"] for example in examples],
            truncation=True,
            max_length=24,
            padding=True,
            return_tensors="pt",
        )
        return batch | {"labels": torch.tensor([e["label"] for e in examples])}

    return collate


def load(folder, name="base"):
    return AutoModelForSequenceClassification.from_pretrained(folder / name)


def estimate(folder, **changes):
    given = {
        "experts": [folder / name for name in TASKS],
        "data": [read(folder, name) for name in TASKS],
        "base_data": read(folder, "base"),
        "collator": collator(folder),
        **changes,
    }
    return merganser.subspace_fisher(given.pop("base", load(folder)), **given)


@pytest.fixture(scope="module")
def result(folder):
    return estimate(folder)


def test_equals_the_file_of_the_executable(folder, result, tmp_path):
    result.save(tmp_path / "out.safetensors")
    expected = load_file(folder / "subspace.safetensors")
    found = load_file(tmp_path / "out.safetensors")
    assert found.keys() == expected.keys()
    for name, x in expected.items():
        error = (found[name] - x).norm() / x.norm()
        assert error < 1e-4, name
    described = []
    for path in (folder / "subspace.safetensors", tmp_path / "out.safetensors"):
        with safe_open(path, "pt") as file:
            described.append(json.loads(file.metadata()["subspace"]))
    for content in described:
        content["groups"] = {g["name"]: set(g["tensors"]) for g in content["groups"]}
    assert described[0] == described[1]


@pytest.mark.slow
@pytest.mark.parametrize("points", [1, 3])
def test_averages_over_points(folder, points, tmp_path):
    out = tmp_path / "points.safetensors"
    command.run(
        *("subspace", "--base", folder / "base", "--base-data", folder / "base.jsonl"),
        *("--expert", folder / "one", "--data", folder / "one.jsonl"),
        *("--max-length", "24", "--out", out, "-q", "--points", str(points)),
        *("--groups", "global"),
    )
    found = estimate(
        folder,
        experts=[folder / "one"],
        data=[read(folder, "one")],
        points=points,
        groups="global",
    ).content
    expected = load_file(out)
    torch.testing.assert_close(
        found.experts[0].fisher, expected["experts.0.fisher"], rtol=1e-4, atol=1e-7
    )
    torch.testing.assert_close(
        found.base.fisher, expected["base.fisher"], rtol=1e-4, atol=1e-7
    )


def merge_recipe(folder, tmp_path, subspace, alphas, directions=()):
    """The tensors of the recipe's merge with these weights of the experts."""
    models = [
        {"model": str(folder / name), "parameters": {"weight": alpha}}
        for name, alpha in zip(TASKS, alphas, strict=True)
    ]
    recipe = {
        "merge_method": "subspace_gradient_matching",
        "base_model": str(folder / "base"),
        "subspace": str(subspace),
        "models": models + [{"model": str(path)} for path in directions],
    }
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(recipe))
    merganser.merge_recipe(tmp_path / "r.yaml", tmp_path / "out")
    return load_file(tmp_path / "out" / "model.safetensors")


@pytest.mark.parametrize("weights", [1.0, [0.5, 2.0]])
@pytest.mark.filterwarnings("ignore:the subspace Fisher has too few examples")
def test_memory_equals_a_recipe(folder, result, weights, tmp_path):
    result.save(tmp_path / "subspace.safetensors")
    alphas = weights if isinstance(weights, list) else [weights] * len(TASKS)
    file = tmp_path / "subspace.safetensors"
    expected = merge_recipe(folder, tmp_path, file, alphas)
    for subspace in (result, tmp_path / "subspace.safetensors"):
        merged = merganser.merge(
            load(folder),
            [load(folder, name) for name in TASKS],
            method="subspace_gradient_matching",
            weights=weights,
            subspace=subspace,
        )
        for name, x in expected.items():
            assert torch.equal(merged[name], x), name


@pytest.mark.slow
def test_unstable_weights_are_said(folder):
    few = estimate(
        folder,
        data=[read(folder, n)[:3] for n in TASKS],
        base_data=read(folder, "base"),
    )
    models = [load(folder, name) for name in TASKS]
    with pytest.warns(UserWarning, match="too few examples for stable weights"):
        merganser.merge(
            load(folder), models, method="subspace_gradient_matching", subspace=few
        )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"points": 0}, "points"),
        ({"groups": "layer"}, "groups"),
        ({"data": [[{"text": "a", "label": 1}]] * 2}, "data.0. has 1 examples"),
        ({"base_data": []}, "^base_data has no examples$"),
        ({"base_data": [], "limit": 3}, "^base_data has no examples$"),
        ({"experts": []}, "experts must have at least one model"),
        ({"experts": "/models/a"}, "experts must be a list, one item per expert"),
        ({"num_examples": [39, 33]}, "experts.0.: .* at least the 40 .* got 39"),
        ({"base_num_examples": 3}, "base: .* at least the 20 examples used, got 3"),
    ],
)
def test_refusals(folder, changes, message):
    with pytest.raises(merganser.InputError, match=message):
        estimate(folder, **changes)


def test_data_without_labels(folder):
    collate = collator(folder)

    def without(examples):
        batch = collate(examples)
        del batch["labels"]
        return batch

    with pytest.raises(merganser.InputError, match="data.0. has no labels"):
        estimate(folder, collator=without)


@pytest.mark.slow
def test_a_model_without_a_checkpoint_is_not_saved(folder, tmp_path):
    experts = [load(folder, name).state_dict() for name in TASKS]
    found = estimate(folder, experts=experts)
    with pytest.raises(
        merganser.InputError, match="experts.0. has no known checkpoint"
    ):
        found.save(tmp_path / "out.safetensors")
    assert not (tmp_path / "out.safetensors").exists()


@pytest.mark.slow
def test_merge_refuses_other_subspaces(folder, result):
    models = [load(folder, name) for name in TASKS]
    method = "subspace_gradient_matching"
    with pytest.raises(merganser.InputError, match="needs subspace"):
        merganser.merge(load(folder), models, method=method)
    with pytest.raises(merganser.InputError, match="Fisher of 1 models, got 2"):
        merganser.merge(load(folder), models[:1], method=method, subspace=result)
    swapped = [load(folder, name) for name in reversed(TASKS)]
    with pytest.raises(merganser.InputError, match="weights than those of models.0."):
        merganser.merge(load(folder), swapped, method=method, subspace=result)
    with pytest.raises(merganser.InputError, match="weights than those of base"):
        merganser.merge(models[0], models, method=method, subspace=result)
    partly = load(folder)
    partly.classifier.weight.requires_grad_(False)
    some = estimate(folder, base=partly)
    with pytest.raises(merganser.InputError, match="lacks tensors that differ"):
        merganser.merge(load(folder), models, method=method, subspace=some)


def test_sizes_are_checked():
    """A wrong size would be read beyond the end of an array."""
    fisher, gradient = torch.ones(2, 3, 3), torch.ones(2, 3)
    given = {"counts": [1, 1], "num_examples": 2}

    def loss(fisher, gradient, **changes):
        return merganser._C.SubspaceLoss(
            fisher=fisher, gradient=gradient, **{**given, **changes}
        )

    for counts in ([], [1]):
        with pytest.raises(merganser.InputError, match="as many counts as folds"):
            loss(fisher, gradient, counts=counts)
    groups = [("a", ["x"]), ("b", ["y"]), ("c", ["z"])]
    base = loss(fisher, None)
    for expert in (loss(fisher, None), loss(fisher[:, :2, :2], gradient[:, :2])):
        with pytest.raises(merganser.InputError, match="of 2 folds and 3 columns"):
            merganser._C.SubspaceFisher(groups=groups, base=base, experts=[expert])
    with pytest.raises(merganser.InputError, match="not finite"):
        bad = loss(fisher / 0, gradient)
        merganser._C.SubspaceFisher(groups=groups, base=base, experts=[bad])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:the subspace Fisher has too few examples")
def test_directions(folder, tmp_path):
    """As in the executable's file; a merge takes them after the experts."""
    torch.manual_seed(3)
    base = load(folder)
    direction = load(folder, "one")
    with torch.no_grad():
        for p in direction.parameters():
            p.add_(0.02 * torch.randn_like(p))
    shutil.copytree(folder / "one", tmp_path / "direction")  # with its tokenizer
    direction.save_pretrained(tmp_path / "direction")
    found = estimate(folder, directions=[tmp_path / "direction"])
    assert "2 experts, directions: 1, " in repr(found)
    found.save(tmp_path / "python.safetensors")
    data = [("--expert", folder / n, "--data", folder / f"{n}.jsonl") for n in TASKS]
    command.run(
        *("subspace", "--base", folder / "base", "--base-data", folder / "base.jsonl"),
        *(option for pair in data for option in pair),
        *("--direction", tmp_path / "direction", "--max-length", "24", "-q"),
        *("--out", tmp_path / "out.safetensors"),
    )
    files = [load_file(tmp_path / f"{x}.safetensors") for x in ("python", "out")]
    assert files[0].keys() == files[1].keys()
    for name, x in files[1].items():
        assert (files[0][name] - x).norm() < 1e-4 * x.norm(), name

    experts = [load(folder, name) for name in TASKS]
    merged = merganser.merge(
        base,
        [*experts, direction],
        method="subspace_gradient_matching",
        subspace=merganser.SubspaceResult.load(tmp_path / "python.safetensors"),
        weights=[0.5, 2.0],
    )
    (tmp_path / "recipe").mkdir()
    written = merge_recipe(
        folder,
        tmp_path / "recipe",
        tmp_path / "python.safetensors",
        (0.5, 2.0),
        [tmp_path / "direction"],
    )
    for name, x in written.items():
        torch.testing.assert_close(merged[name], x, rtol=0, atol=0)
    wide = merganser.merge(
        base,
        [*experts, direction],
        method="task_arithmetic",
        subspace=found,
        weights=["auto", "auto"],
    )
    assert any(not torch.equal(wide[n], x) for n, x in base.state_dict().items())
    for wrong in (str(tmp_path), direction, None, direction.state_dict()):
        with pytest.raises(merganser.InputError, match="must be a list of models"):
            estimate(folder, directions=wrong)
    message = "weights must have 2 items, one per expert, not 3"
    with pytest.raises(merganser.InputError, match=message):
        merganser.merge(
            base,
            [*experts, direction],
            method="subspace_gradient_matching",
            subspace=found,
            weights=[1, 1, 1],
        )
