"""merganser subspace with diagonal Fishers in place of data: the file and the merges
against float64."""

import json
import shutil
import warnings

import command
import merganser
import pytest
import tensor_files
import torch
import training_inputs
import yaml
from merganser._C import Estimate, FisherScale
from merganser._objective.groups import group_names
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification

TASKS = {"one": 40, "two": 33}
COUNTS = {"base": 50, **TASKS}
SCALES = {"base": 0.5, "two": 2.5}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A base, two experts and a direction; Fishers of all but the direction."""
    folder = tmp_path_factory.mktemp("subspace_of_fishers")
    training_inputs.make_experts(folder, {**TASKS, "direction": 4}, 4)
    for name in COUNTS:
        write_fisher(folder, name, scale=SCALES.get(name))
    for groups in ("global", "block", "tensor"):
        estimate(folder, folder / f"{groups}.safetensors", "--groups", groups)
    return folder


def weights_of(folder, name):
    return load_file(folder / name / "model.safetensors")


def write_fisher(folder, name, values=None, scale=None):
    """A Fisher over orders of magnitude, with rows of zeros, or of equal values."""
    generator = torch.Generator().manual_seed(list(COUNTS).index(name))
    diagonal = {}
    for key, x in weights_of(folder, name).items():
        f = torch.exp(1.5 * torch.randn(x.shape, generator=generator))
        f[: len(f) // 5] = 0
        diagonal[key] = f if values is None else torch.full_like(x, values)
    fisher = merganser.FisherResult(
        diagonal,
        num_examples=COUNTS[name],
        num_examples_used=7,
        estimator="exact",
        base_model_hash=merganser.inspect(folder / name)["content_hash"],
    )
    if scale is not None:
        fisher.scale = FisherScale(
            scale=Estimate(scale, 0.1), merge_hash="", num_examples_used=7
        )
    fisher.save(folder / f"{name}.fisher.safetensors")
    return fisher


def arguments(folder, out, *more, experts=TASKS):
    yield from ("subspace", "--base", folder / "base", "--out", out)
    yield from ("--base-fisher", folder / "base.fisher.safetensors")
    for name in experts:
        yield from ("--expert", folder / name)
        yield from ("--fisher", folder / f"{name}.fisher.safetensors")
    yield from more


def estimate(folder, out, *more, **changes):
    return command.run(*arguments(folder, out, *more, **changes)).stdout


def recipe(folder, path, subspace, models=tuple(TASKS), **changes):
    given = {
        "merge_method": "task_arithmetic",
        "base_model": str(folder / "base"),
        "subspace": str(subspace),
        "models": [{"model": str(folder / name)} for name in models],
        "parameters": {"weight": "auto"},
        **changes,
    }
    path.write_text(yaml.safe_dump(given))
    return path


def plan(path):
    return json.loads(command.run("plan", path, "--json").stdout)


def merged(path, out):
    command.run("merge", path, out, "-q")
    return load_file(out / "model.safetensors")


def task_vectors(folder, names=tuple(TASKS)):
    base = weights_of(folder, "base")
    return [
        {n: x.double() - base[n].double() for n, x in weights_of(folder, name).items()}
        for name in names
    ]


def curvature(folder, name, tensors, taus):
    """H = c N F in the span of task vectors on some tensors."""
    fisher = load_file(folder / f"{name}.fisher.safetensors")
    factor = SCALES.get(name, 1) * COUNTS[name]
    products = [
        sum((a[n] * factor * fisher[n] * b[n]).sum() for n in tensors)
        for a in taus
        for b in taus
    ]
    return torch.stack(products).view(len(taus), len(taus))


def solve(folder, tensors, taus):
    """The weights of the task vectors on some tensors; those beyond the tasks are
    directions."""
    a = curvature(folder, "base", tensors, taus)
    b = torch.zeros(len(taus), dtype=torch.float64)
    for t, name in enumerate(TASKS):
        h = curvature(folder, name, tensors, taus)
        a += h
        b += h[:, t]
    return torch.linalg.solve(a, b)


def subspace_file(folder, groups, directions, tmp_path):
    """The fixture's file, or one with directions."""
    if not directions:
        return folder / f"{groups}.safetensors"
    file = tmp_path / "out.safetensors"
    more = [word for name in directions for word in ("--direction", folder / name)]
    estimate(folder, file, *more, "--groups", groups)
    return file


@pytest.mark.slow
@pytest.mark.parametrize("groups", ["global", "block", "tensor"])
@pytest.mark.parametrize("directions", [(), ("direction",)])
def test_matrices_are_products_in_float64(folder, groups, directions, tmp_path):
    file = subspace_file(folder, groups, directions, tmp_path)
    taus = task_vectors(folder, (*TASKS, *directions))
    group_of = group_names(taus[0], groups)
    loaded = merganser.SubspaceResult.load(file)
    names = list(loaded.groups)
    assert {n: g for g, tensors in loaded.groups.items() for n in tensors} == group_of
    content = loaded.content
    losses = dict(zip(COUNTS, (content.base, *content.experts), strict=False))
    width = len(taus) * len(names)
    for name, loss in losses.items():
        expected = torch.zeros(width, width, dtype=torch.float64)
        for g, tensors in enumerate(loaded.groups.values()):
            rows = torch.arange(len(taus)) * len(names) + g
            expected[rows[:, None], rows] = curvature(folder, name, tensors, taus)
        assert (loss.counts, loss.num_examples) == ([7], COUNTS[name])
        found = loss.fisher[0] / 7 * COUNTS[name]
        # The executable's task vectors are float32.
        tolerance = 1e-9 * expected.max().item()
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=tolerance)
        assert name == "base" or not loss.gradient.any()
    of_directions = content.experts[len(TASKS) :]
    assert [loss.counts for loss in of_directions] == [[] for _ in directions]


@pytest.mark.parametrize("groups", ["global", "block"])
def test_auto_weights_equal_the_solution_in_float64(folder, tmp_path, groups):
    path = recipe(folder, tmp_path / "r.yaml", folder / f"{groups}.safetensors")
    taus = task_vectors(folder)
    weights = solve(folder, taus[0].keys(), taus)
    shown = [float(model["weight"]) for model in plan(path)["models"]]
    assert shown == pytest.approx(weights.tolist(), abs=1e-4)
    base = weights_of(folder, "base")
    for name, x in merged(path, tmp_path / "out").items():
        step = sum(w * tau[name] for w, tau in zip(weights, taus, strict=True))
        torch.testing.assert_close(x.double(), base[name] + step, rtol=0, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("groups", ["block", "tensor"])
@pytest.mark.parametrize("directions", [(), ("direction",)])
def test_groups_are_solved_one_by_one(folder, tmp_path, groups, directions):
    file = subspace_file(folder, groups, directions, tmp_path)
    method = "subspace_gradient_matching"
    models = (*TASKS, *directions)
    path = recipe(
        folder, tmp_path / "r.yaml", file, models, merge_method=method, parameters={}
    )
    found = merged(path, tmp_path / "out")
    taus = task_vectors(folder, models)
    base = weights_of(folder, "base")
    for tensors in merganser.SubspaceResult.load(file).groups.values():
        weights = solve(folder, tensors, taus)
        for n in tensors:
            step = sum(w * tau[n] for w, tau in zip(weights, taus, strict=True))
            expected = base[n] + step
            torch.testing.assert_close(found[n].double(), expected, rtol=0, atol=1e-5)


@pytest.mark.slow
def test_nothing_is_validated(folder, tmp_path):
    """The plan says so; the merge in memory, which is that of the recipe, warns of
    nothing."""
    file = folder / "tensor.safetensors"  # more weights than examples
    path = recipe(folder, tmp_path / "r.yaml", file)
    notes = plan(path)["notes"]
    beginning = "shrink 0; from diagonal Fishers, without cross-validation; largest "
    (note,) = (note for note in notes if "shrink" in note)
    assert note.startswith(beginning + "weight ")
    assert not any("too few" in note or "fewer" in note for note in notes)
    base, *models = (
        AutoModelForSequenceClassification.from_pretrained(folder / name)
        for name in ("base", *TASKS)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = merganser.merge(
            base, models, method="task_arithmetic", weights="auto", subspace=file
        )
    expected = merged(path, tmp_path / "out")
    assert all(torch.equal(found[name], x) for name, x in expected.items())
    method = {"merge_method": "subspace_gradient_matching"}
    path = recipe(
        *(folder, tmp_path / "s.yaml", file), **method, parameters={"shrink": 0.5}
    )
    (note,) = (note for note in plan(path)["notes"] if "shrink" in note)
    assert note.startswith("shrink 0.5; from diagonal Fishers")


@pytest.mark.slow
def test_summary_says_the_scales(folder, tmp_path):
    out = tmp_path / "out.safetensors"
    assert estimate(folder, out) == (
        f"{out}: Fishers of the base and 2 experts in "
        f"{2 * len(merganser.SubspaceResult.load(out).groups)} columns, from diagonals "
        "with scales 0.5, 1, 2.5\n"
    )
    json_of = json.loads(estimate(folder, out, "--json", "--groups", "global"))
    assert json_of == {
        "out": str(out),
        "columns": 2,
        "groups": 1,
        "points": 1,
        "scales": [0.5, 1, 2.5],
    }


def shown_weights(folder, tmp_path, tasks=tuple(TASKS)):
    out = tmp_path / "out.safetensors"
    estimate(folder, out, "--groups", "global", experts=tasks)
    path = recipe(folder, tmp_path / "r.yaml", out, tasks)
    return [float(model["weight"]) for model in plan(path)["models"]]


@pytest.mark.slow
def test_equal_fishers_weigh_by_the_number_of_examples(tmp_path):
    """With H = N f everywhere the joint optimum is the average of all models by N."""
    training_inputs.make_experts(tmp_path, TASKS, 4)
    for name in COUNTS:
        write_fisher(tmp_path, name, values=0.25)
    total = sum(COUNTS.values())
    expected = [count / total for count in TASKS.values()]
    assert shown_weights(tmp_path, tmp_path) == pytest.approx(expected, abs=5e-5)
    # A scale multiplies N.
    write_fisher(tmp_path, "base", values=0.25, scale=3)
    expected = [count / (total + 100) for count in TASKS.values()]
    assert shown_weights(tmp_path, tmp_path) == pytest.approx(expected, abs=5e-5)


@pytest.mark.slow
def test_an_expert_alone_keeps_its_weights(tmp_path):
    """A base of curvature 0, as an expert's minimum is the only one."""
    training_inputs.make_experts(tmp_path, TASKS, 4)
    write_fisher(tmp_path, "one")
    write_fisher(tmp_path, "base", values=0)
    assert shown_weights(tmp_path, tmp_path, ("one",)) == [1]


def options_of(given):
    return [x for key, value in given.items() for x in (f"--{key}", value)]


MODES = "expected --base-data and --data, or in their place --base-fisher and --fisher"
REFUSED = [
    ({}, MODES),
    ({"base-data": "base.jsonl"}, MODES),
    ({"data": "one.jsonl"}, MODES),
    ({"base-fisher": "base.fisher.safetensors"}, MODES),
    ({"fisher": "one.fisher.safetensors"}, MODES),
    (
        {"base-fisher": "base.fisher.safetensors", "data": "one.jsonl"},
        MODES,
    ),
    (
        {"base-data": "base.jsonl", "fisher": "one.fisher.safetensors"},
        MODES,
    ),
]


@pytest.mark.parametrize(("given", "message"), REFUSED)
def test_data_and_fishers_do_not_mix(folder, tmp_path, given, message):
    out = tmp_path / "out.safetensors"
    files = {key: folder / name for key, name in given.items()}
    done = command.run(
        *("subspace", "--base", folder / "base", "--expert", folder / "one"),
        *("--out", out, *options_of(files)),
        check=False,
    )
    assert done.returncode == 2
    assert message in done.stderr
    assert not out.exists()


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--points", 2),
        ("--limit", -1),
        ("--seed", 0),
        ("--batch-size", 32),
        ("--max-length", 128),
        ("--dtype", "float32"),
    ],
)
def test_options_of_data_are_refused(folder, tmp_path, option, value):
    out = tmp_path / "out.safetensors"
    done = command.run(*arguments(folder, out, option, value), check=False)
    assert done.returncode == 2
    assert f"{option} applies to --data, not to --fisher" in done.stderr
    assert not out.exists()


def test_numbers_of_files(folder, tmp_path):
    out = tmp_path / "out.safetensors"
    more = ("--expert", folder / "direction")
    done = command.run(*arguments(folder, out, *more), check=False)
    assert done.returncode == 2
    assert "expected --fisher once per expert, got 2 for 3 experts" in done.stderr


def set_first(value):
    """Edit of one element of a tensor in the middle of the model."""

    def edit(x):
        x.view(-1)[0] = value
        return x

    return lambda file: tensor_files.change(file, "bert.pooler.dense.weight", edit)


def without_pooler(file):
    tensor_files.rewrite(
        file, lambda tensors: {n: x for n, x in tensors.items() if "pooler" not in n}
    )


@pytest.mark.slow
@pytest.mark.parametrize("model", ["base", "one"])
@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (
            lambda file: tensor_files.rewrite(file, base_model_hash="0" * 32),
            "belongs to a different model than",
        ),
        (set_first(-0.5), "must be finite and not negative"),
        (set_first(float("nan")), "must be finite and not negative"),
        (set_first(float("inf")), "must be finite and not negative"),
        (without_pooler, "the Fisher of bert.pooler.dense.weight is missing"),
        (
            lambda file: tensor_files.rewrite(file, scale="{}"),
            "the metadata key 'scale' is damaged",
        ),
    ],
    ids=["hash", "negative", "nan", "inf", "missing", "scale"],
)
def test_bad_fishers(folder, tmp_path, model, edit, message):
    copy = shutil.copytree(folder, tmp_path / "copy")
    edit(copy / f"{model}.fisher.safetensors")
    out = tmp_path / "out.safetensors"
    done = command.run(*arguments(copy, out), check=False)
    assert done.returncode == 2
    assert f"{model}.fisher.safetensors: " in done.stderr
    assert message in done.stderr
    assert not out.exists()


def test_a_file_without_an_estimate_is_no_fisher(folder, tmp_path):
    out = tmp_path / "out.safetensors"
    more = ("--expert", folder / "two", "--fisher", folder / "global.safetensors")
    done = command.run(*arguments(folder, out, *more, experts=["one"]), check=False)
    assert done.returncode == 2
    assert "global.safetensors: " in done.stderr
    assert not out.exists()
