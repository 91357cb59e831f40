"""Gram matrices, subspace Fishers and merges of SentenceTransformer modules, against
their definitions in float64, one pair of texts at a time."""

import copy
import json

import merganser
import pytest
import torch
from command import run
from gram_oracle import gram_sums
from sentence_models import (
    PAIRS,
    TEXTS,
    Pairs,
    cosine_loss,
    gradients,
    pair_batch,
    sentence_encoder,
)
from sentence_transformers import SentenceTransformer
from transformers import BatchEncoding

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:the subspace Fisher has too few examples"),
]
NAMES = ("base", "a", "b")
COUNT = len(PAIRS)
DELTA = 1e-3


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoders")
    for seed, name in enumerate(NAMES):
        sentence_encoder(folder / name, seed)
    return folder


@pytest.fixture(scope="module")
def models(folder):
    return {name: Pairs(str(folder / name), device="cpu") for name in NAMES}


def data(model):
    """Two batches, in which texts are padded."""
    return [pair_batch(model, PAIRS[:3]), pair_batch(model, PAIRS[3:])]


def singles(model):
    return [pair_batch(model, [pair]) for pair in PAIRS]


def wide(model):
    return {name: x.double() for name, x in model.state_dict().items()}


def define_grams(model):
    sums = gram_sums(
        copy.deepcopy(model).double().eval(), [x for x, _ in singles(model)]
    )
    return {name: total / COUNT for name, total in sums.items()}


def assert_close_to(found, expected, tolerance=1e-6):
    assert found.keys() == expected.keys()
    for name, x in expected.items():
        error = (found[name].double() - x).norm()
        assert error <= tolerance * max(1.0, float(x.norm())), name


def as_tokenized(item):
    """The batch with the mappings that a tokenizer returns."""
    inputs, labels = item
    return {name: BatchEncoding(tokens) for name, tokens in inputs.items()}, labels


@pytest.mark.parametrize("form", ["dicts", "tokenized"])
def test_gram(form, models):
    """The masks of both texts count, in whatever mapping they are."""
    change = as_tokenized if form == "tokenized" else lambda item: item
    expected = define_grams(models["a"])
    assert {"2.linear.weight", "0.model.pooler.dense.weight"} < expected.keys()
    found = merganser.gram(models["a"], [change(item) for item in data(models["a"])])
    assert_close_to(found, expected)


def test_gram_of_one_text(folder):
    """SentenceTransformer.forward takes the tokens as one dict."""
    model = SentenceTransformer(str(folder / "a"), device="cpu")

    def batch(texts):
        features = model.preprocess(texts).items()
        return {"input": {name: x for name, x in features if torch.is_tensor(x)}}

    found = merganser.gram(model, [batch(TEXTS[:2]), batch(TEXTS[2:])])
    definition = copy.deepcopy(model).double().eval()
    sums = gram_sums(definition, [batch([text]) for text in TEXTS])
    assert_close_to(found, {n: total / len(TEXTS) for n, total in sums.items()})


def test_gram_with_the_names_of_files(models, folder, tmp_path):
    """A recipe finds the matrices of every module, and knows the weights."""
    found = merganser.gram(models["a"], data(models["a"]), model_path=folder / "a")
    content = merganser.inspect(folder / "a")
    assert {"2_Dense/linear.weight", "pooler.dense.weight"} < found.keys()
    assert found.base_model_hash == content["content_hash"]
    inputs = []
    for name in ("a", "b"):
        path = tmp_path / f"{name}.safetensors"
        model, where = models[name], folder / name
        merganser.gram(model, data(model), model_path=where).save(path)
        inputs.append({"model": str(where), "gram": str(path)})
    recipe = tmp_path / "r.yaml"
    recipe.write_text(json.dumps({"merge_method": "regmean", "models": inputs}))
    assert "not checked" not in run("plan", recipe).stdout
    run("merge", recipe, tmp_path / "out", "-q")
    merged = Pairs(str(tmp_path / "out"), device="cpu")
    assert_close_to(merged.state_dict(), define_regmean(models), 2e-5)


def define_regmean(models):
    """(sum_t W_t G_t) (sum_t G_t)^-1, with the default off_diagonal and ridge; the
    average of other tensors."""
    states = [wide(models[name]) for name in ("a", "b")]
    grams = [define_grams(models[name]) for name in ("a", "b")]
    expected = {}
    for name in states[0]:
        thetas = [state[name] for state in states]
        expected[name] = sum(thetas) / 2
        if name in grams[0]:
            eye = torch.eye(len(grams[0][name])).double()
            gs = [COUNT * gram[name] for gram in grams]
            gs = [0.9 * g + 0.1 * g * eye for g in gs]
            ridge = 1e-4 * sum(gs).trace() / len(eye) / 2
            gs = [g + ridge * eye for g in gs]
            weighted = sum(x @ g for x, g in zip(thetas, gs, strict=True))
            expected[name] = weighted @ sum(gs).inverse()
    return expected


def define_h(model):
    found = list(gradients(model, singles(model)))
    return {name: sum(g[name] ** 2 for g in found) for name in found[0]}


def define_gradient_matching(models):
    base, a, b = (wide(models[name]) for name in NAMES)
    h0, ha, hb = (define_h(models[name]) for name in NAMES)
    expected = {}
    for name, x in base.items():
        h = h0[name] + DELTA
        step = (h + ha[name]) * (a[name] - x) + (h + hb[name]) * (b[name] - x)
        expected[name] = x + step / (h + ha[name] + hb[name])
    return expected


def define_task_arithmetic(models):
    base, a, b = (wide(models[name]) for name in NAMES)
    return {n: x + 0.3 * (a[n] - x) + 0.3 * (b[n] - x) for n, x in base.items()}


MERGES = {
    "task_arithmetic": define_task_arithmetic,
    "gradient_matching": define_gradient_matching,
    "regmean": define_regmean,
}


@pytest.mark.parametrize("method", MERGES)
def test_merge(method, models):
    """Of modules; a module takes the result, and encodes like the float64 merge."""
    experts = [models["a"], models["b"]]
    options = {}
    if method == "task_arithmetic":
        options = {"base": models["base"], "weights": 0.3}
    elif method == "gradient_matching":
        f0, *fishers = (
            merganser.fisher(m, data(m), "empirical", loss=cosine_loss)
            for m in models.values()
        )
        options = {"base": models["base"], "fishers": fishers, "base_fisher": f0}
        options["parameters"] = {"delta": DELTA}
    else:
        grams = [merganser.gram(m, data(m)) for m in experts]
        options = {"base": None, "grams": grams}
    merged = merganser.merge(models=experts, method=method, **options)
    expected = MERGES[method](models)
    assert_close_to(merged, expected, 2e-5)
    assert_encodes(models["base"], merged, expected)


def assert_encodes(module, merged, expected):
    found, definition = copy.deepcopy(module), copy.deepcopy(module).double()
    found.load_state_dict(merged)
    definition.load_state_dict(expected)
    inputs, _ = pair_batch(module, PAIRS)
    with torch.no_grad():
        embeddings = found.eval()(**inputs)
        assert (module.eval()(**inputs) - embeddings).abs().max() > 0.01
        exact = definition.eval()(**inputs)
    torch.testing.assert_close(embeddings.double(), exact, rtol=0, atol=2e-5)


def columns_of(models, groups):
    """The columns tau_tg, as dicts."""
    base, *thetas = (wide(models[name]) for name in NAMES)
    columns = []
    for theta in thetas:
        for _, names in groups:
            columns.append({n: theta[n] - base[n] for n in names})
    return columns


def products(model, columns):
    """<g_i, tau_tg> of the pairs i, (pairs, T G)."""
    rows = [
        torch.stack([sum((g[n] * x).sum() for n, x in c.items()) for c in columns])
        for g in gradients(model, singles(model))
    ]
    return torch.stack(rows)


def halfway(models, name):
    """A model half the path to the experts' average: at the average."""
    a, b = wide(models["a"]), wide(models["b"])
    moved = copy.deepcopy(models[name]).double()
    moved.load_state_dict({n: (x + b[n]) / 2 for n, x in a.items()})
    return moved


def estimate(models, **options):
    experts = [models["a"], models["b"]]
    sets = [data(model) for model in experts]
    return merganser.subspace_fisher(
        models["base"],
        options.pop("experts", experts),
        sets,
        data(models["base"]),
        loss=cosine_loss,
        **options,
    )


@pytest.mark.parametrize("points", [1, 2])
@pytest.mark.parametrize("groups, count", [("global", 1), ("block", 7), ("tensor", 41)])
def test_subspace_fisher(groups, count, points, models):
    """P^T g and the average of P^T g g^T P over the points, in the sum over pairs."""
    found = estimate(models, groups=groups, points=points).content
    columns = columns_of(models, found.groups)
    assert len(found.groups) == count
    for name, part in zip(
        ("base", "a", "b"), (found.base, *found.experts), strict=True
    ):
        u = products(models[name], columns)
        fisher = u.T @ u
        if points == 2:
            at_average = products(halfway(models, name), columns)
            fisher = (fisher + at_average.T @ at_average) / 2
        total = part.fisher.sum(0)
        assert (total - fisher).norm() < 1e-4 * fisher.norm(), name
        if name != "base":
            gradient = part.gradient.sum(0)
            assert (gradient - u.sum(0)).norm() < 1e-4 * u.sum(0).norm(), name


def test_subspace_merge(models):
    """The weights solve P^T (H_0 + sum_t H_t) P v = sum_t P^T (H_t P e_t - g_t)."""
    subspace = estimate(models, groups="global", points=1)
    merged = merganser.merge(
        models["base"],
        [models["a"], models["b"]],
        method="subspace_gradient_matching",
        subspace=subspace,
        parameters={"shrink": 0},
    )
    columns = columns_of(models, subspace.content.groups)
    base, *us = (products(models[name], columns) for name in NAMES)
    matrix, right = base.T @ base, torch.zeros(2).double()
    for t, u in enumerate(us):
        matrix = matrix + u.T @ u
        right = right + (u.T @ u)[:, t] - u.sum(0)
    v = torch.linalg.solve(matrix, right)
    expected = {
        n: x + v[0] * columns[0].get(n, 0) + v[1] * columns[1].get(n, 0)
        for n, x in wide(models["base"]).items()
    }
    assert_close_to(merged, expected, 1e-4)


def test_subspace_fisher_of_directories(models, folder):
    """Experts given as paths have the names of files."""
    expected = estimate(models, groups="global").content
    found = estimate(models, experts=[folder / "a", folder / "b"], groups="global")
    for ours, theirs in zip(found.content.experts, expected.experts, strict=True):
        assert torch.equal(ours.fisher, theirs.fisher)
        assert torch.equal(ours.gradient, theirs.gradient)
