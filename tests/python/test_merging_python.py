"""merganser.merge: the same bits as the engine gives on files, and refusals."""

import json

import merganser
import pytest
import tiny_models
import torch
from safetensors.torch import load_file
from torch import nn

METHODS = [
    "linear",
    "task_arithmetic",
    "fisher",
    "fisher_base",
    "gradient_matching",
    "removal",
    "ewr",
]
WITH_FISHERS = METHODS[2:]
WITH_BASE_FISHER = METHODS[3:]
WEIGHTS = [0.9, 0.6]


class Files:
    """A base and two models with Fishers, in memory and in a folder."""

    def __init__(self, folder, dtype=torch.float32):
        self.folder = folder
        self.names = ["base", "a", "b"]
        self.models = {}
        self.fishers = {}
        base = tiny_models.distilbert()
        for n, name in enumerate(self.names):
            model = tiny_models.distilbert()
            model.load_state_dict(base.state_dict())
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter += 0.1 * n * torch.randn_like(parameter)
            model = model.to(dtype)
            model.save_pretrained(folder / name)
            self.models[name] = model.state_dict()
            self.fishers[name] = self.random_fisher(name, 100 + 7 * n)
            self.fishers[name].save(folder / f"{name}.fisher.safetensors")

    def random_fisher(self, name, num_examples):
        """Over many orders of magnitude, as Fishers are, with rows of zeros."""
        diagonal = {}
        for key, tensor in self.models[name].items():
            f = torch.exp(torch.randn(tensor.shape) * 6 - 20)
            f[: len(f) // 3] = 0
            diagonal[key] = f
        return merganser.FisherResult(
            diagonal,
            num_examples=num_examples,
            num_examples_used=num_examples,
            estimator="exact",
            base_model_hash=merganser.inspect(self.folder / name)["content_hash"],
        )

    def recipe(self, method, weights=WEIGHTS, **options):
        content = {
            "merge_method": method,
            "base_model": "base",
            "models": [
                {"model": name, "parameters": {"weight": weight}}
                for name, weight in zip(["a", "b"], weights, strict=True)
            ],
        } | options
        if method in WITH_FISHERS:
            for model in content["models"]:
                model["fisher"] = f"{model['model']}.fisher.safetensors"
        if method in WITH_BASE_FISHER:
            content["base_fisher"] = "base.fisher.safetensors"
        path = self.folder / f"{method}.yaml"
        path.write_text(json.dumps(content))  # JSON is YAML
        return path

    def merge(self, method, **options):
        arguments = {"method": method, "weights": WEIGHTS} | options
        if method in WITH_FISHERS:
            arguments["fishers"] = [self.fishers["a"], self.fishers["b"]]
        if method in WITH_BASE_FISHER:
            arguments["base_fisher"] = self.fishers["base"]
        models = [self.models["a"], self.models["b"]]
        return merganser.merge(self.models["base"], models, **arguments)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    torch.manual_seed(3)
    return Files(tmp_path_factory.mktemp("float32"))


def assert_equal_bits(merged, folder):
    written = load_file(folder / "model.safetensors")
    assert set(merged) == set(written)
    for name, tensor in written.items():
        assert merged[name].dtype == tensor.dtype
        assert torch.equal(merged[name], tensor), name


@pytest.mark.parametrize("method", METHODS)
def test_same_bits_as_the_engine(files, method, tmp_path):
    """With every default, so that the defaults are seen to be the same."""
    report = merganser.merge_recipe(files.recipe(method), tmp_path / "out")
    assert report["method"] == method
    assert_equal_bits(files.merge(method), tmp_path / "out")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("method", ["linear", "gradient_matching"])
def test_same_bits_in_other_dtypes(method, dtype, tmp_path):
    files = Files(tmp_path, dtype)
    merganser.merge_recipe(files.recipe(method), tmp_path / "out")
    assert_equal_bits(files.merge(method), tmp_path / "out")


@pytest.mark.parametrize(
    ("method", "parameters"),
    [
        ("gradient_matching", {"delta": 1e-3}),
        ("removal", {"clamp": 0.75}),
        ("ewr", {"floor": 1e-9}),
        ("linear", {"normalize": False}),
        ("task_arithmetic", {"normalize": True}),
    ],
)
def test_same_bits_with_parameters(files, method, parameters, tmp_path):
    recipe = files.recipe(method, parameters=parameters)
    merganser.merge_recipe(recipe, tmp_path / "out")
    merged = files.merge(method, **parameters)
    assert_equal_bits(merged, tmp_path / "out")
    default = files.merge(method)
    assert any(not torch.equal(merged[name], default[name]) for name in merged)


WHOLE = {
    "ties": {"density": 0.4, "lambda": 1.5},
    "dare_linear": {"density": 0.6, "seed": 3},
    "dare_ties": {"density": 0.4},
    "breadcrumbs": {"density": 0.7, "gamma": 0.1},
    "breadcrumbs_ties": {
        "density": [{"filter": "attention", "value": 0.3}, {"value": 0.6}]
    },
    "della": {"density": [0.3, 0.8], "epsilon": 0.2},
    "della_linear": {"density": 0.7, "epsilon": 0.1, "rescale": False},
    "model_stock": {},
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("method", WHOLE)
def test_same_bits_of_whole_tensors(tmp_path, method, dtype):
    files = Files(tmp_path, dtype)
    recipe = files.recipe(method, parameters=WHOLE[method])
    merganser.merge_recipe(recipe, tmp_path / "out")
    options = {"weights": 1} if method == "model_stock" else {}
    merged = files.merge(method, parameters=WHOLE[method], **options)
    assert_equal_bits(merged, tmp_path / "out")


@pytest.mark.parametrize("normalize", [True, False])
def test_normalized_task_vectors(files, normalize, tmp_path):
    recipe = files.recipe("ties", parameters={"normalize": normalize})
    merganser.merge_recipe(recipe, tmp_path / "out")
    assert_equal_bits(files.merge("ties", normalize=normalize), tmp_path / "out")


def test_slerp(files, tmp_path):
    recipe = json.loads(files.recipe("slerp", parameters={"t": 0.3}).read_text())
    del recipe["models"][1]
    (files.folder / "slerp.yaml").write_text(json.dumps(recipe))
    merganser.merge_recipe(files.folder / "slerp.yaml", tmp_path / "out")
    base, a = files.models["base"], files.models["a"]
    merged = merganser.merge(base, [a], method="slerp", parameters={"t": 0.3})
    assert_equal_bits(merged, tmp_path / "out")


@pytest.mark.parametrize(
    ("method", "options", "words"),
    [
        ("ties", {"parameters": {"density": 2}}, "density must be between 0 and 1"),
        ("ties", {"parameters": {"dense": 1}}, "parameters:1:2: .*dense"),
        ("ties", {"parameters": {"density": object()}}, "parameters must be as in"),
        ("ties", {"parameters": {"density": {"sweep": [0.1, 0.9]}}}, "is a sweep"),
        ("ties", {"parameters": {"weight": 5}}, "are given as weights"),
        ("della", {"parameters": {"density": 0.9}}, "density 0.9 and epsilon 0.15"),
        ("passthrough", {}, "passthrough takes one model, not 2"),
        ("ties", {"weights": [1]}, "weights must be 2, one per model, not 1"),
        ("slerp", {"weights": 1}, "slerp takes one model beside the base, not 2"),
        ("model_stock", {}, "the method model_stock has no weights"),
        ("linear", {"parameters": {}}, "linear has no parameters but those with"),
        ("regmean", {}, "regmean takes Gram matrices, which are read from files"),
    ],
)
def test_refusals_of_whole_tensors(files, method, options, words):
    with pytest.raises(merganser.InputError, match=words):
        files.merge(method, **options)


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
    """`fisher` knows the weights' hash only if it is told where they are."""
    files = Files(tmp_path)
    fisher = files.fishers["a"]
    for known in ("", files.fishers["b"].base_model_hash):
        fisher.base_model_hash = known
        fisher.save(tmp_path / "a.fisher.safetensors")
        recipe = files.recipe("fisher")
        if known:
            with pytest.raises(merganser.InputError, match="of other weights than"):
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
    with pytest.raises(merganser.InputError, match="'step' differs"):
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
        ({"method": "average"}, "no merge method 'average'"),
        ({"models": []}, "models is empty"),
        ({"models": nn.Sequential(nn.Linear(2, 1))}, "models must be a list.*Sequenti"),
        ({"models": MODEL}, "models must be a list, one item per model, not dict"),
        ({"fishers": FISHER}, "fishers must be a list.*not FisherResult"),
        ({"models": [MODEL | {"_extra_state": {}}]}, r"models\[0\]: '_extra_state' is"),
        ({"base": None}, "gradient_matching needs base, "),
        ({"fishers": None}, "needs fishers, one per model: 2, not 0"),
        ({"fishers": [FISHER]}, "needs fishers, one per model: 2, not 1"),
        ({"fishers": [FISHER, FISHER.diagonal]}, r"fishers\[1\].*not dict"),
        ({"base_fisher": None}, "needs base_fisher"),
        ({"weights": [1.0]}, "weights must be 2, one per model, not 1"),
        ({"normalize": True}, "gradient_matching does not normalize"),
        ({"models": [MODEL, plain(w=[1.0, 1.0])]}, r"models\[1\] lacks.* base: 'b'"),
        ({"models": [MODEL, MODEL | plain(c=[1.0])]}, r"models\[1\] has.*beyond.*'c'"),
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
        ("ewr", "weights", [0, 0], "the weights of the models must not sum to 0"),
        ("linear", "weights", [1, -1], "the weights of the models must not sum to 0"),
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
    """Refused in the words in which a recipe is."""
    with pytest.raises(merganser.InputError, match=words):
        files.merge(method, **{name: value})
    if name == "weights":
        path = files.recipe(method, weights=value)
    else:
        path = files.recipe(method, parameters={name: value})
    # As YAML writes what JSON cannot.
    text = path.read_text().replace("NaN", ".nan").replace("Infinity", ".inf")
    path.write_text(text)
    with pytest.raises(merganser.InputError, match=words):
        merganser.plan(path)


@pytest.mark.parametrize(
    ("weights", "words"),
    [("ab", r"weights\[0\] must be a number, not 'a'"), (None, "must be a number")],
)
def test_weights_of_another_type(files, weights, words):
    with pytest.raises(merganser.InputError, match=words):
        files.merge("linear", weights=weights)


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
    """A classifier of tokens whose output weight is its embedding; a frozen layer and
    one with statistics of its own, which have no Fisher."""

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
    # The merge of the trained parameters by themselves.
    trained = [{n: model.state_dict()[n] for n in fishers[0]} for model in models]
    expected = merganser.merge(
        trained[0], trained[1:], fishers[1:], method, base_fisher=fishers[0]
    )
    for name, tensor in merged.items():
        kept = models[0].state_dict()[name]
        assert torch.equal(tensor, expected.get(name, kept)), name


def test_tensors_that_need_a_fisher(tied):
    models, fishers = tied
    with pytest.raises(merganser.InputError, match=r"'frozen\.weight'.*for ewr all do"):
        merganser.merge(
            models[0], models[1:], fishers[1:], "ewr", 1, base_fisher=fishers[0]
        )
    models[2].norm.running_mean += 1
    with pytest.raises(merganser.InputError, match=r"fishers\[0\] lacks.*'norm\.runn"):
        merganser.merge(models[0], models[1:], fishers[1:], "fisher")
    fishers[2].diagonal.pop("norm.weight")
    models[2].norm.running_mean -= 1
    with pytest.raises(merganser.InputError, match=r"fishers\[1\] lacks.*'norm\.weig"):
        merganser.merge(None, models[1:], fishers[1:], "fisher")


def test_overflow_is_refused():
    half = {"w": torch.full((2,), 60000.0, dtype=torch.float16)}
    with pytest.raises(merganser.InputError, match="merged model: tensor 'w'"):
        merganser.merge(None, [half, half], method="linear", normalize=False)


def test_inputs_stay_as_they_were(files):
    layer = nn.Linear(3, 2)
    before = {name: t.clone() for name, t in layer.state_dict().items()}
    merged = merganser.merge(layer, [layer], method="task_arithmetic", weights=0.5)
    merged["weight"].zero_()
    assert torch.equal(layer.weight, before["weight"])
    assert not merged["weight"].requires_grad


def test_plan_and_inspect(files, tmp_path):
    plan = merganser.plan(files.recipe("gradient_matching"))
    state = files.models["base"]
    assert {t["name"]: t["shape"] for t in plan["tensors"]} == {
        name: list(tensor.shape) for name, tensor in state.items()
    }
    found = merganser.inspect(files.folder / "a.fisher.safetensors", hashes=False)
    assert found["metadata"]["num_examples"] == "107"
    assert "content_hash" not in found


def test_progress_and_its_exceptions(files, tmp_path):
    calls = []
    merganser.merge_recipe(
        files.recipe("linear"),
        tmp_path / "out",
        threads=1,
        progress=lambda *call: calls.append(call),
    )
    assert [done for done, _, _ in calls] == sorted(done for done, _, _ in calls)
    assert len(calls) >= len(files.models["base"])
    assert calls[-1][0] == calls[-1][1]

    def stop(done, total, text):
        raise ZeroDivisionError("from the callback")

    with pytest.raises(ZeroDivisionError, match="from the callback"):
        merganser.merge_recipe(files.recipe("linear"), tmp_path / "no", progress=stop)
    # As after Ctrl-C, which is an exception too: what is done is kept.
    assert {path.name for path in tmp_path.iterdir()} == {"out", "no.merging"}
    merganser.merge_recipe(files.recipe("linear"), tmp_path / "no", resume=True)
    weights = (tmp_path / "out" / "model.safetensors").read_bytes()
    assert (tmp_path / "no" / "model.safetensors").read_bytes() == weights
    assert {path.name for path in tmp_path.iterdir()} == {"out", "no"}


@pytest.mark.parametrize("threads", [-3, 1025, "2", 1.5])
def test_numbers_of_threads(files, threads, tmp_path):
    with pytest.raises(merganser.InputError, match="threads must be"):
        merganser.merge_recipe(files.recipe("linear"), tmp_path / "o", threads=threads)
    assert not list(tmp_path.iterdir())


def test_errors_of_the_engine(files, tmp_path):
    with pytest.raises(merganser.InputError, match=r"absent\.yaml"):
        merganser.merge_recipe(tmp_path / "absent.yaml", tmp_path / "out")
    with pytest.raises(ValueError, match="there is no merge method"):
        merganser.plan(files.recipe("average"))
    with pytest.raises(merganser.Error):
        merganser.inspect(tmp_path / "absent")
