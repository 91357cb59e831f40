"""Fishers with a scale or a power in recipes and in memory."""

import json
from functools import partial

import merganser
import pytest
import torch
from command import run
from merganser._C import Estimate, FisherScale
from merganser._merge import memory_merge
from merging_files import WITH_BASE_FISHER, WITH_FISHERS, Files, assert_equal_bits
from safetensors.torch import load_file
from tensor_files import rewrite

SCALED = [method for method in WITH_FISHERS if method != "ewr"]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    torch.manual_seed(4)
    return Files(tmp_path_factory.mktemp("fisher_scales"))


@pytest.fixture
def calibrated(tmp_path):
    """Models whose Fishers have scales in their metadata."""
    torch.manual_seed(4)
    files = Files(tmp_path)
    for name, value in SCALES.items():
        files.fishers[name].scale = FisherScale(
            scale=Estimate(value, 0.125), merge_hash="", num_examples_used=9
        )
        files.fishers[name].save(tmp_path / f"{name}.fisher.safetensors")
    return files


SCALES = {"base": 0.5, "a": 2.5, "b": 4.0}
PARAMETERS = {"fisher_scale": 2.5, "base_fisher_scale": 0.5}


def merge_file(files, method, out, **options):
    merganser.merge_recipe(files.recipe(method, **options), out)
    return out


@pytest.mark.parametrize("method", SCALED)
def test_a_scale_multiplies_the_number_of_examples(files, method, tmp_path):
    out = merge_file(files, method, tmp_path / "scaled", parameters=PARAMETERS)
    # rho and Gram matrices also depend on N.
    if method in ("measured_gradient_matching", "block_gradient_matching"):
        scaled = load_file(out / "model.safetensors")
        plain = load_file(
            merge_file(files, method, tmp_path / "plain") / "model.safetensors"
        )
        assert any(not torch.equal(x, plain[name]) for name, x in scaled.items())
    else:
        models = [
            {"model": name, "num_examples": 2.5 * files.fishers[name].num_examples}
            for name in "ab"
        ]
        expected = merge_file(
            *(files, method, tmp_path / "expected"),
            models=models,
            base_num_examples=0.5 * files.fishers["base"].num_examples,
        )
        file = "model.safetensors"
        found, wanted = load_file(out / file), load_file(expected / file)
        assert all(torch.equal(x, wanted[name]) for name, x in found.items())
    parameters = {
        name: value
        for name, value in PARAMETERS.items()
        if name == "fisher_scale" or method in WITH_BASE_FISHER
    }
    assert_equal_bits(files.merge(method, parameters=parameters), out)


@pytest.mark.parametrize("method", SCALED)
@pytest.mark.parametrize("normalize", [False, True])
def test_a_power_is_that_of_the_values(files, method, normalize, tmp_path):
    """Against Fishers that are raised in float64 before the merge, in float64."""
    if normalize and method == "measured_gradient_matching":
        return  # has no normalize_fishers
    options = {"normalize_fishers": normalize}
    if method == "measured_gradient_matching":
        options = {}
    raised = [
        merganser.FisherResult(
            {name: f.double().sqrt() for name, f in files.fishers[model].items()},
            files.fishers[model].num_examples,
            1,
            "exact",
            task_vector=files.fishers[model].task_vector,
        )
        for model in ("base", "a", "b")
    ]
    fishers = {"fishers": raised[1:]}
    if method in WITH_BASE_FISHER:
        fishers["base_fisher"] = raised[0]
    expected = files.merge(method, parameters=options, **fishers)
    options |= {"fisher_power": 0.5}
    found = files.merge(method, parameters=options)
    for name, x in expected.items():
        assert torch.allclose(found[name], x, rtol=1e-5, atol=1e-6), name
    out = merge_file(files, method, tmp_path / "out", parameters=options)
    assert_equal_bits(found, out)


def test_the_gpus_path_leaves_powers_to_the_engine(files, monkeypatch):
    """Runs the choice of the path as on a GPU."""
    called = []
    monkeypatch.setattr(
        memory_merge, "merge_by_op", lambda *_: called.append(1) or torch.zeros(1)
    )
    monkeypatch.setattr(torch.Tensor, "is_cuda", property(lambda _: True))
    files.merge("fisher", parameters={"fisher_power": 0.5})
    assert not called
    files.merge("fisher")
    assert called


def rows(dimension, count, seed):
    """Least squares with one coordinate per row: diagonal, quadratic losses."""
    generator = torch.Generator().manual_seed(seed)
    normal = partial(torch.randn, generator=generator, dtype=torch.float64)
    x = torch.zeros(count, dimension, dtype=torch.float64)
    x[torch.arange(count), torch.arange(count) % dimension] = normal(count)
    return x, 3 * normal(count, 1)


@pytest.mark.parametrize("auto", [False, True])
def test_scales_restore_joint_training_on_ridge_regression(auto):
    """Fishers that are off by a known factor, and experts without a proximal term,
    for which fisher_base is exact."""
    factors = [0.1, 3.0, 20.0]
    data = [rows(6, n, n) for n in (60, 30, 18)]
    h = [x.square().sum(0) for x, _ in data]
    moments = [(x * y).sum(0) for x, y in data]
    models = [{"w": m / f} for m, f in zip(moments, h, strict=True)]
    fishers = [
        merganser.FisherResult(
            {"w": f / len(x) / factor},
            len(x),
            len(x),
            "exact",
            scale=FisherScale(
                scale=Estimate(factor, 0.1), merge_hash="", num_examples_used=2
            ),
        )
        for f, factor, (x, _) in zip(h, factors, data, strict=True)
    ]

    def error(weights, **parameters):
        merged = merganser.merge(
            models[0],
            models[1:],
            fishers[1:],
            "fisher_base",
            weights,
            base_fisher=fishers[0],
            parameters={"delta": 0} | parameters,
        )
        return (merged["w"] - sum(moments) / sum(h)).abs().max().item()

    if auto:
        measured = {"fisher_scale": "auto", "base_fisher_scale": "auto"}
        assert error(None, **measured) < 1e-10
    else:
        assert error(factors[1:], base_fisher_scale=factors[0]) < 1e-10
    assert error(None) > 1e-2


@pytest.mark.parametrize("method", ["fisher", "gradient_matching"])
def test_auto_is_the_scale_of_the_file(calibrated, method, tmp_path):
    auto = {"fisher_scale": "auto"}
    if method == "gradient_matching":
        auto["base_fisher_scale"] = "auto"
    out = merge_file(calibrated, method, tmp_path / "auto", parameters=auto)
    models = [
        {"model": name, "num_examples": x * calibrated.fishers[name].num_examples}
        for name, x in SCALES.items()
        if name != "base"
    ]
    n = 0.5 * calibrated.fishers["base"].num_examples
    expected = merge_file(
        calibrated, method, tmp_path / "given", models=models, base_num_examples=n
    )
    file = "model.safetensors"
    found, wanted = load_file(out / file), load_file(expected / file)
    assert all(torch.equal(x, wanted[name]) for name, x in found.items())
    assert_equal_bits(calibrated.merge(method, parameters=auto), out)


def test_plan_shows_scales(calibrated):
    file = calibrated.recipe(
        "gradient_matching",
        parameters={"fisher_scale": "auto", "base_fisher_scale": 0.25},
    )
    text = run("plan", file).stdout
    header, base, a, b = text.splitlines()[2:6]
    assert "scale" in header
    assert "0.25" in base
    assert "2.500 ± 0.125" in a
    assert "4.000 ± 0.125" in b
    plan = json.loads(run("plan", file, "--json").stdout)
    measured = {"value": 2.5, "standard_error": 0.125}
    assert plan["models"][0]["fisher_scale_measured"] == measured
    assert plan["base"]["fisher_scale_measured"]["value"] == 0.5
    # A recipe without scales keeps its table.
    text = run("plan", calibrated.recipe("gradient_matching")).stdout
    assert "scale" not in text.splitlines()[2]


def test_sweeps(calibrated, tmp_path):
    sweep = {"fisher_scale": {"sweep": [1, 3]}}
    merge_file(calibrated, "fisher", tmp_path / "out", parameters=sweep)
    for value in (1, 3):
        expected = merge_file(
            *(calibrated, "fisher", tmp_path / f"{value}"),
            parameters={"fisher_scale": value},
        )
        found = load_file(
            tmp_path / "out" / f"fisher_scale={value}" / "model.safetensors"
        )
        wanted = load_file(expected / "model.safetensors")
        assert all(torch.equal(x, wanted[name]) for name, x in found.items())


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"fisher_scale": "auto"}, "a.fisher.safetensors: fisher_scale: auto expects"),
        ({"base_fisher_scale": "auto"}, "base.fisher.safetensors: base_fisher_scale"),
        ({"fisher_scale": 0}, "greater than 0"),
        ({"fisher_scale": -1}, "fisher_scale"),
        ({"fisher_power": 0}, "greater than 0"),
        ({"fisher_power": "auto"}, "must be a number"),
        ({"fisher_power": {"sweep": [0.5, 1]}}, "fisher_power cannot be swept"),
    ],
)
def test_bad_input(files, parameters, words):
    done = run(
        "plan", files.recipe("gradient_matching", parameters=parameters), check=False
    )
    assert done.returncode == 2
    assert words in done.stderr


def test_plan_notes_a_scale_that_may_be_zero(calibrated, tmp_path):
    fisher = calibrated.fishers["a"]
    path = tmp_path / "a.fisher.safetensors"
    for error, noted in ((1.2, False), (1.3, True)):
        fisher.scale = FisherScale(
            scale=Estimate(2.5, error), merge_hash="", num_examples_used=9
        )
        fisher.save(path)
        for parameters in ({"fisher_scale": "auto"}, {"fisher_scale": 1}):
            recipe = calibrated.recipe("fisher", parameters=parameters)
            notes = merganser.plan(recipe)["notes"]
            expected = noted and parameters == {"fisher_scale": "auto"}
            words = f"{path}: its scale is 2.5 ± 1.3; calibrate it"
            assert any(note.startswith(words) for note in notes) == expected


@pytest.mark.parametrize(
    "other", [{"normalize_fishers": True}, {"fisher_power": 0.5}], ids=str
)
def test_auto_needs_n_f(calibrated, other):
    parameters = {"fisher_scale": "auto"} | other
    words = f"auto is measured for H = N F; set a number with {next(iter(other))}"
    done = run("plan", calibrated.recipe("fisher", parameters=parameters), check=False)
    assert done.returncode == 2
    assert words in done.stderr
    with pytest.raises(merganser.InputError, match=words):
        calibrated.merge("fisher", parameters=parameters)


@pytest.mark.parametrize("value", [-5.0, 0.0, float("inf")])
def test_a_damaged_scale(calibrated, tmp_path, value):
    file = tmp_path / "a.fisher.safetensors"
    scale = {"value": value, "standard_error": 0.1, "merge_hash": ""}
    rewrite(file, scale=json.dumps(scale | {"num_examples_used": 9}))
    done = run("plan", calibrated.recipe("fisher"), check=False)
    assert done.returncode == 2
    assert "the metadata key 'scale' is damaged" in done.stderr
