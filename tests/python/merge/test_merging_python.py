"""Arguments that merganser.merge accepts and refuses."""

import json
import warnings

import merganser
import pytest
import tiny_models
import torch
from merging_files import (
    WEIGHTS,
    WITH_BASE_FISHER,
    WITH_FISHERS,
    Files,
    assert_equal_bits,
)
from safetensors.torch import load_file, save_file
from torch import nn


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    torch.manual_seed(3)
    return Files(tmp_path_factory.mktemp("float32"))


@pytest.mark.parametrize(
    ("method", "options", "words"),
    [
        ("ties", {"parameters": {"density": 2}}, "density must be between 0 and 1"),
        ("ties", {"parameters": {"dense": 1}}, "parameters: .*dense"),
        ("ties", {"parameters": {"density": object()}}, "parameters must be as in"),
        ("ties", {"parameters": {"density": {"sweep": [0.1, 0.9]}}}, "is a sweep"),
        ("ties", {"weights": [{"sweep": [1, 2]}, 1]}, "weight is a sweep"),
        ("ties", {"parameters": {"weight": 5}}, "pass weights"),
        ("ties", {"parameters": [5]}, "parameters.* must be a mapping"),
        ("della", {"parameters": {"density": 0.9}}, "density 0.9 and epsilon 0.15"),
        ("passthrough", {}, "passthrough takes one model, not 2"),
        ("ties", {"weights": [1]}, "weights must have 2 items, one per model, not 1"),
        ("ties", {"weights": [1, {"value": 1, "on": 2}]}, r"weights\[1\]: .*'on'"),
        ("ewr", {"weights": None}, "method ewr needs the parameter weight for tensor"),
        ("slerp", {"weights": None}, "one model in addition to the base, not 2"),
        ("model_stock", {}, "model_stock has no parameter weight; available: none"),
        (
            "linear",
            {"parameters": {"delta": 1}},
            "linear has no parameter delta; available: weight, normalize",
        ),
    ],
)
def test_refusals_of_parameters(files, method, options, words):
    with pytest.raises(merganser.InputError, match=words):
        files.merge(method, **options)


def test_copied_tensors_must_be_finite():
    model = {"w": torch.tensor([1.0, torch.nan])}
    with pytest.raises(merganser.InputError, match="tensor 'w' is nan at index 1"):
        merganser.merge(None, [model], method="passthrough")


def test_whole_tensors_must_be_finite(files):
    spoiled = {name: t.clone() for name, t in files.models["a"].items()}
    spoiled["classifier.weight"].view(-1)[3] = torch.nan
    with pytest.raises(merganser.InputError, match=r"models\[0\]: tensor 'classifier"):
        merganser.merge(
            files.models["base"],
            [spoiled],
            method="dare_linear",
            parameters={"density": 0},
        )


def test_half_models_on_a_float32_base_round_once(files):
    """The result has the base's dtype and the precision of float32 arithmetic."""
    halves = [{n: t.bfloat16() for n, t in files.models[m].items()} for m in "ab"]
    merged = merganser.merge(files.models["base"], halves, method="task_arithmetic")
    name = "classifier.weight"
    base = files.models["base"][name]
    expected = base + ((halves[0][name] - base) + (halves[1][name] - base))
    assert torch.equal(merged[name], expected)


def test_a_fisher_of_unknown_weights_is_taken_and_one_of_others_is_not(tmp_path):
    """`fisher` stores the weights' hash only with model_path."""
    files = Files(tmp_path)
    fisher = files.fishers["a"]
    for known in ("", files.fishers["b"].base_model_hash):
        fisher.base_model_hash = known
        fisher.save(tmp_path / "a.fisher.safetensors")
        recipe = files.recipe("fisher")
        if known:
            with pytest.raises(merganser.InputError, match="on other weights than"):
                merganser.merge_recipe(recipe, tmp_path / "refused")
        else:
            merganser.merge_recipe(recipe, tmp_path / "out")
            assert_equal_bits(files.merge("fisher"), tmp_path / "out")


def test_modules_and_files_are_taken(files, tmp_path):
    model = tiny_models.distilbert()
    modules = []
    for name in files.names:
        module = tiny_models.distilbert()
        module.load_state_dict(files.models[name])
        modules.append(module)
    merged = merganser.merge(
        modules[0],
        modules[1:],
        [files.folder / "a.fisher.safetensors", files.folder / "b.fisher.safetensors"],
        weights=WEIGHTS,
        base_fisher=files.folder / "base.fisher.safetensors",
    )
    model.load_state_dict(merged)
    for name, tensor in files.merge("gradient_matching").items():
        assert torch.equal(model.state_dict()[name], tensor)


def test_integers_come_from_the_base_or_agree():
    def state(step):
        return {"w": torch.ones(2), "step": torch.tensor(step)}

    merged = merganser.merge(state(3), [state(4), state(5)], method="task_arithmetic")
    assert merged["step"] == 3
    merged = merganser.merge(None, [state(4), state(4)], method="linear")
    assert merged["step"] == 4
    with pytest.raises(merganser.InputError, match="'step' has integers"):
        merganser.merge(None, [state(4), state(5)], method="linear")


def plain(**tensors):
    return {name: torch.tensor(values) for name, values in tensors.items()}


def fisher(**tensors):
    return merganser.FisherResult(plain(**tensors), 10, 10, "exact")


BASE = plain(w=[1.0, 2.0], b=[0.0])
MODEL = plain(w=[1.5, 1.0], b=[0.5])
FISHER = fisher(w=[1.0, 2.0], b=[3.0])


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"method": "average"}, "unknown merge method 'average'"),
        ({"models": []}, "needs at least 1 model"),
        ({"models": nn.Sequential(nn.Linear(2, 1))}, "models must be a list.*Sequenti"),
        ({"models": MODEL}, "models must be a list, one item per model, not dict"),
        ({"fishers": FISHER}, "fishers must be a list.*not FisherResult"),
        ({"models": [MODEL | {"_extra_state": {}}]}, r"models\[0\]: '_extra_state' is"),
        ({"base": None}, "gradient_matching needs base, "),
        ({"fishers": None}, "needs fishers, one per model: expected 2, got 0"),
        ({"fishers": [FISHER]}, "needs fishers, one per model: expected 2, got 1"),
        ({"fishers": [FISHER, FISHER.diagonal]}, r"fishers\[1\].*not dict"),
        ({"base_fisher": None}, "needs base_fisher"),
        ({"weights": [1.0]}, "weights must have 2 items, one per model, not 1"),
        (
            {"parameters": {"normalize": True}},
            "gradient_matching does not normalize",
        ),
        ({"models": [MODEL, plain(w=[1.0, 1.0])]}, r"models\[1\] lacks.* base: 'b'"),
        (
            {"models": [MODEL, MODEL | plain(c=[1.0])]},
            r"models\[1\] has.*base lacks.*'c'",
        ),
        (
            {"models": [MODEL, plain(w=[1.0], b=[1.0])]},
            r"models\[1\]: tensor 'w' has shape \[1\], but \[2\] in base",
        ),
        ({"models": [MODEL, plain(w=[1, 1], b=[1.0])]}, r"models\[1\]: tensor 'w' is"),
        ({"models": [MODEL, 5]}, r"models\[1\] must be a module or a state dict"),
        (
            {"models": [MODEL, plain(w=[1.0, float("nan")], b=[1.0])]},
            r"models\[1\]: tensor 'w'.*only finite",
        ),
        (
            {"models": [MODEL, plain(w=[1j, 1.0], b=[1.0])]},
            r"models\[1\]: tensor 'w' is torch.complex64",
        ),
        ({"fishers": [FISHER, fisher(w=[1.0, 2.0])]}, r"fishers\[1\] lacks.*'b'"),
        ({"fishers": [fisher(w=[1.0, -2.0], b=[1.0]), FISHER]}, r"fishers\[0\]: tens"),
        ({"base_fisher": fisher(w=[1.0], b=[1.0])}, r"base_fisher: tensor 'w' has sh"),
        (
            {"base_fisher": fisher(w=[1.0, float("inf")], b=[1.0])},
            r"base_fisher: tensor 'w'.*not negative",
        ),
    ],
)
def test_refusals(change, named):
    arguments = {
        "base": BASE,
        "models": [MODEL, MODEL],
        "fishers": [FISHER, FISHER],
        "base_fisher": FISHER,
    }
    merganser.merge(**arguments)
    with pytest.raises(merganser.InputError, match=named):
        merganser.merge(**arguments | change)


NAN, INFINITY = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("method", "name", "value", "words"),
    [
        ("fisher", "weights", [-1, 1], "weight.* must be at least 0, not"),
        ("removal", "weights", [-1, -1], "weight.* must be at least 0, not"),
        ("fisher", "weights", [0, 0], "the weights of the models .*sum to 0"),
        ("regmean", "weights", [0, 0], "the weights of the models .*sum to 0"),
        ("linear", "weights", [1, -1], "the weights of the models .*sum to 0"),
        ("task_arithmetic", "weights", [1, NAN], "weight.* must be a number, not"),
        ("gradient_matching", "delta", -1, "delta must be at least 0, not"),
        ("gradient_matching", "delta", INFINITY, "delta must be a number, not"),
        ("removal", "clamp", 5, "clamp must be between 0 and 1, not"),
        ("removal", "clamp", 0, "clamp must be greater than 0, not"),
        ("removal", "clamp", -1, "clamp must be between 0 and 1, not"),
        ("ewr", "floor", -1, "floor must be greater than 0, not"),
        ("ewr", "floor", NAN, "floor must be a number, not"),
        ("ewr", "normalize", True, "the method ewr does not normalize weights"),
    ],
)
def test_values_out_of_range(files, method, name, value, words):
    """The error is the same as for a recipe."""
    with pytest.raises(merganser.InputError, match=words):
        if name == "weights":
            files.merge(method, weights=value)
        else:
            files.merge(method, parameters={name: value})
    if name == "weights":
        path = files.recipe(method, weights=value)
    else:
        path = files.recipe(method, parameters={name: value})
    # YAML notation for values that JSON lacks.
    text = path.read_text().replace("NaN", ".nan").replace("Infinity", ".inf")
    path.write_text(text)
    with pytest.raises(merganser.InputError, match=words):
        merganser.plan(path)


@pytest.mark.parametrize("method", WITH_BASE_FISHER)
def test_weights_of_0_give_the_base(files, tmp_path, method):
    """A sweep can begin at 0, and weights can be 0 in some layers."""
    base = files.models["base"]
    sweep = {"weight": {"sweep": [0, 0.5]}}
    merganser.merge_recipe(files.recipe(method, None, parameters=sweep), tmp_path / "s")
    for name, tensor in load_file(tmp_path / "s/weight=0/model.safetensors").items():
        assert torch.equal(tensor, base[name]), name
    weight = [{"filter": "attention", "value": 0}, {"value": 0.5}]
    merged = files.merge(method, [weight, weight])
    assert_equal_bits(files.merge(method, [0, 0]), tmp_path / "s/weight=0")
    unchanged = {name for name in merged if torch.equal(merged[name], base[name])}
    assert unchanged == {name for name in merged if "attention" in name}


@pytest.mark.parametrize("removed", [0.1, 1.0, 5.0, 8.9])
def test_removal_is_exact_at_defaults(removed):
    """One coordinate, where the rest has the curvature 1 and the optimum 1."""

    def curvature(value):
        return merganser.FisherResult(plain(w=[value]), 1, 1, "exact")

    joint = (1 + removed * 5) / (1 + removed)
    expert = (removed * 5 + (1 + removed) * joint) / (removed + 1 + removed)
    merged = merganser.merge(
        plain(w=[joint]),
        [plain(w=[expert])],
        [curvature(removed)],
        "removal",
        base_fisher=curvature(1 + removed),
    )
    torch.testing.assert_close(merged["w"], torch.ones(1), rtol=0, atol=2e-5)


@pytest.mark.parametrize(
    "method", ["fisher_base", "removal", "block_gradient_matching"]
)
def test_normalized_fishers(files, method):
    """Against docs/method.md in float64, with H = F / mean F."""
    parameters = {"normalize_fishers": True}
    merged = files.merge(method, parameters=parameters)
    by_gram = files.grams["a"] if method.startswith("block") else {}
    names = [name for name in merged if name not in by_gram]
    h = {}
    for model, fisher in files.fishers.items():
        values = {name: fisher[name].double() for name in names}
        total = sum(value.sum() for value in values.values())
        mean = total / sum(value.numel() for value in values.values())
        h[model] = {name: value / mean for name, value in values.items()}
    for name in names:
        base = files.models["base"][name].double()
        h0 = h["base"][name] + 1e-12
        terms = [
            (w, h[model][name], files.models[model][name].double() - base)
            for w, model in zip(WEIGHTS, "ab", strict=True)
        ]
        total = sum(w * x for w, x, _ in terms)
        plain = sum(w * tau for w, _, tau in terms)
        if method == "fisher_base":
            update = sum(w * x * tau for w, x, tau in terms) / (h0 + total)
        else:
            update = sum(w * (h0 + x) * tau for w, x, tau in terms)
            rest = h0 - total if method == "removal" else h0 + total
            update = update / rest
        if method == "removal":
            update = -torch.where(rest < 0.05 * (h0 + total), plain, update)
        found = merged[name].double()
        torch.testing.assert_close(found, base + update, rtol=1e-4, atol=1e-4)


def test_weights_of_another_type(files):
    words = r"weights\[0\].* weight must be a number, not 'ab'"
    with pytest.raises(merganser.InputError, match=words):
        files.merge("linear", weights="ab")


def test_weights_below_0_without_fishers(files):
    merged = files.merge("task_arithmetic", weights=torch.tensor([-1.0, 0.5]))
    assert all(tensor.isfinite().all() for tensor in merged.values())


@pytest.mark.parametrize("count", [0, -5, float("nan"), None])
def test_numbers_of_examples(count):
    for label, change in {
        r"fishers\[1\]": {"fishers": [FISHER, fisher_of(count)]},
        "base_fisher": {"base_fisher": fisher_of(count)},
    }.items():
        arguments = {"fishers": [FISHER, FISHER], "base_fisher": FISHER} | change
        with pytest.raises(merganser.InputError, match=f"{label}: num_examples must"):
            merganser.merge(BASE, [MODEL, MODEL], **arguments)


def fisher_of(count):
    return merganser.FisherResult(FISHER.diagonal, count, 10, "exact")


class TiedTo(nn.Module):
    """A token classifier with a tied embedding, and with a frozen layer and one with
    statistics, which have no Fisher."""

    def __init__(self, seed):
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(5, 4)
        self.frozen = nn.Linear(4, 4).requires_grad_(False)
        self.norm = nn.BatchNorm1d(4)
        self.out = nn.Linear(4, 5, bias=False)
        self.out.weight = self.embedding.weight
        torch.manual_seed(seed)
        with torch.no_grad():
            for parameter in self.parameters():
                if parameter.requires_grad:
                    parameter += 0.1 * torch.rand_like(parameter)

    def forward(self, ids):
        return self.out(self.norm(self.frozen(self.embedding(ids).mean(1))))


@pytest.fixture
def tied():
    models = [TiedTo(seed) for seed in (1, 2, 3)]
    data = [torch.randint(0, 5, (6, 3))]
    return models, [merganser.fisher(model, data, "mc_batch") for model in models]


@pytest.mark.parametrize("method", WITH_FISHERS[:4])
def test_tied_frozen_and_buffers(method, tied):
    models, fishers = tied
    merged = merganser.merge(
        models[0], models[1:], fishers[1:], method, base_fisher=fishers[0]
    )
    tied, single = merged.pop("out.weight"), merged["embedding.weight"]
    assert torch.equal(tied, single)
    assert not torch.equal(tied, models[0].out.weight)
    # Merges the trained parameters alone.
    trained = [{n: model.state_dict()[n] for n in fishers[0]} for model in models]
    expected = merganser.merge(
        trained[0], trained[1:], fishers[1:], method, base_fisher=fishers[0]
    )
    for name, tensor in merged.items():
        kept = models[0].state_dict()[name]
        assert torch.equal(tensor, expected.get(name, kept)), name


def test_tensors_that_need_a_fisher(tied):
    models, fishers = tied
    fishers[2].diagonal.pop("norm.weight")
    with pytest.raises(merganser.InputError, match=r"fishers\[1\] lacks.*'norm\.weig"):
        merganser.merge(None, models[1:], fishers[1:], "fisher")


@pytest.mark.parametrize("average", [None, True, False])
@pytest.mark.parametrize("method", WITH_FISHERS[:5])
def test_moved_buffers_are_averaged(method, average, tied, tmp_path):
    """Running statistics, in memory and in a recipe."""
    models, fishers = tied
    names = ["base", "a", "b"]
    for step, (name, model, fisher) in enumerate(
        zip(names, models, fishers, strict=True)
    ):
        model.norm.running_mean += step
        model.norm.running_var *= 1 + step
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
        state = {n: t for n, t in model.state_dict().items() if n != "out.weight"}
        save_file(state, tmp_path / name / "model.safetensors", {"format": "pt"})
        fisher.save(tmp_path / f"{name}.safetensors")
    is_given = average is not None and method != "fisher"
    parameters = {"average_buffers": average} if is_given else {}
    weights = [0.2, 0.6]
    recipe = {
        "merge_method": method,
        "base_model": "base",
        "models": [
            {"model": n, "fisher": f"{n}.safetensors", "parameters": {"weight": w}}
            for n, w in zip("ab", weights, strict=True)
        ],
        "parameters": parameters,
    }
    if method != "fisher":
        recipe["base_fisher"] = "base.safetensors"
    (tmp_path / "r.yaml").write_text(json.dumps(recipe))
    with pytest.warns(
        match="no Fisher has these.*'norm.running_mean', 'norm.running_v"
    ):
        merged = merganser.merge(
            models[0],
            models[1:],
            fishers[1:],
            method,
            weights,
            base_fisher=fishers[0] if method != "fisher" else None,
            parameters=parameters,
        )
    buffers = [model.norm.running_var.double() for model in models]
    kept = average is False or (average is None and method in ("removal", "ewr"))
    average = (0.2 * buffers[1] + 0.6 * buffers[2]) / 0.8
    expected = buffers[0] if kept and method != "fisher" else average
    torch.testing.assert_close(merged["norm.running_var"], expected.float())
    report = merganser.merge_recipe(tmp_path / "r.yaml", tmp_path / "out")
    assert report["tensors_without_fisher"] == 2
    merged.pop("out.weight")
    written = load_file(tmp_path / "out" / "model.safetensors")
    for name, tensor in merged.items():
        assert torch.equal(tensor, written[name]), name
    actions = {
        tensor["name"]: tensor["reason"]
        for tensor in merganser.plan(tmp_path / "r.yaml")["tensors"]
    }
    reason = "the base's" if kept and method != "fisher" else "average by weight"
    assert actions["norm.running_mean"] == f"{reason}, without a Fisher"
    assert actions["norm.weight"] == ""


def test_overflow_is_refused():
    half = {"w": torch.full((2,), 60000.0, dtype=torch.float16)}
    with pytest.raises(merganser.InputError, match="tensor 'w' would be 120000 at"):
        merganser.merge(
            None, [half, half], method="linear", parameters={"normalize": 0}
        )


def test_inputs_stay_as_they_were(files):
    layer = nn.Linear(3, 2)
    before = {name: t.clone() for name, t in layer.state_dict().items()}
    merged = merganser.merge(layer, [layer], method="task_arithmetic", weights=0.5)
    merged["weight"].zero_()
    assert torch.equal(layer.weight, before["weight"])
    assert not merged["weight"].requires_grad


GRAM = merganser.GramResult(plain(w=[[2.0, 1.0], [1.0, 3.0]]), 10, 10)
MATRIX = plain(w=[[1.0, 2.0]], b=[0.0])


def gram(**tensors):
    return merganser.GramResult(plain(**tensors), 10, 10)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"grams": None}, "regmean needs grams, one per model: expected 2, got 0"),
        ({"grams": [GRAM]}, "regmean needs grams, one per model: expected 2, got 1"),
        ({"grams": GRAM}, "grams must be a list.*not GramResult"),
        ({"grams": [GRAM, GRAM.matrices]}, r"grams\[1\] must be a GramR.*not dict"),
        ({"grams": [GRAM, FISHER]}, r"grams\[1\] must be a GramR.*not FisherResult"),
        ({"grams": [GRAM, gram()]}, r"grams\[1\] has no Gram matrix for tensor 'w'"),
        (
            {"grams": [GRAM, gram(c=[[1.0]])]},
            r"grams\[1\] has tensors that its model lacks: 'c'",
        ),
        (
            {"grams": [GRAM, gram(w=[[1.0]])]},
            r"grams\[1\]: tensor 'w' has shape \[1, 1\], but \[2, 2\] in its model",
        ),
        ({"grams": [gram(b=[0.0]), GRAM]}, r"grams\[0\]: tensor 'b' has shape \[1\]"),
        ({"grams": [gram(w=[[1, 0], [0, 1]]), GRAM]}, r"grams\[0\]: tensor 'w' is"),
        (
            {"grams": [GRAM, gram(w=[[1.0, 5.0], [0.0, 1.0]])]},
            r"grams\[1\]: tensor 'w'.* must be symmetric",
        ),
        (
            {"grams": [GRAM, merganser.GramResult(GRAM.matrices, 0, 10)]},
            r"grams\[1\]: num_examples must be greater than 0",
        ),
        (
            {"method": "block_gradient_matching", "fishers": [FISHER, FISHER]},
            "needs base_gram, the base's own",
        ),
    ],
)
def test_refusals_of_grams(change, words):
    arguments = {"base": MATRIX, "models": [MATRIX, MATRIX], "method": "regmean"}
    merganser.merge(**arguments, grams=[GRAM, GRAM])
    with pytest.raises(merganser.InputError, match=words):
        merganser.merge(**arguments | {"grams": [GRAM, GRAM]} | change)


def test_what_has_a_gram_matrix_needs_no_fisher():
    other = plain(w=[[3.0, 2.0]], b=[0.5])
    only_bias = fisher(b=[3.0])
    options = {
        "method": "block_gradient_matching",
        "base_fisher": only_bias,
        "base_gram": GRAM,
        "parameters": {"normalize_fishers": True},
    }
    merged = merganser.merge(MATRIX, [other], [only_bias], grams=[GRAM], **options)
    # One model is returned unchanged.
    assert all(torch.allclose(merged[name], other[name]) for name in other)
    with pytest.warns(match="no Fisher has these tensors.*'w'"):
        merganser.merge(
            MATRIX,
            [other],
            [only_bias],
            grams=[gram()],
            **options | {"base_gram": gram()},
        )


def test_tied_weights_have_one_gram_matrix():
    def tied(values):
        weight = torch.tensor(values)
        return {"w": weight, "again": weight}

    models = [tied([[1.0, 2.0]]), tied([[3.0, 0.0]])]
    merged = merganser.merge(None, models, method="regmean", grams=[GRAM, GRAM])
    single = [{"w": model["w"]} for model in models]
    expected = merganser.merge(None, single, method="regmean", grams=[GRAM, GRAM])
    assert torch.equal(merged["w"], expected["w"])
    assert torch.equal(merged["again"], expected["w"])


def test_estimators_of_other_scales_are_named():
    """As the plan of a recipe notes."""
    models = [{"w": torch.ones(2)}, {"w": torch.zeros(2)}]
    fishers = [
        merganser.FisherResult(
            {"w": torch.ones(2)}, num_examples=1, num_examples_used=1, estimator=name
        )
        for name in ("exact", "adam", "mc")
    ]
    words = r"different estimators \(adam, exact\), whose scales differ; use one"
    with pytest.warns(UserWarning, match=words) as caught:
        merganser.merge(None, models, fishers[:2], method="fisher")
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        merganser.merge(None, models, fishers[::2], method="fisher")
        options = {"parameters": {"normalize_fishers": True}}
        merganser.merge(None, models, fishers[:2], method="fisher", **options)
