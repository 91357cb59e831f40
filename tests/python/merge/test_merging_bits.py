"""merganser.merge is bit-identical to the engine on files."""

import json

import merganser
import pytest
import torch
from merganser._C import find_method
from merganser._merge import memory_merge
from merganser._merge.inputs import read_inputs
from merging_files import ELEMENTWISE, GRAMS, WEIGHTS, Files, assert_equal_bits
from safetensors.torch import load_file, save_file
from transformers import GPT2Config, GPT2LMHeadModel

BY_NAME = [{"filter": "attention", "value": 0.3}, {"value": [0.2, 1.1]}]
ONE_MODEL = {"slerp": {"t": 0.3}, "passthrough": {"scale": 0.7}}
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


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    torch.manual_seed(3)
    return Files(tmp_path_factory.mktemp("float32"))


@pytest.mark.parametrize("method", ELEMENTWISE + GRAMS)
def test_defaults(files, method, tmp_path):
    report = merganser.merge_recipe(files.recipe(method), tmp_path / "out")
    assert report["method"] == method
    assert_equal_bits(files.merge(method), tmp_path / "out")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("method", ["linear", "gradient_matching", "regmean"])
def test_other_dtypes(method, dtype, tmp_path):
    files = Files(tmp_path, dtype)
    merganser.merge_recipe(files.recipe(method), tmp_path / "out")
    assert_equal_bits(files.merge(method), tmp_path / "out")


def test_means_of_fishers_in_any_order(tmp_path):
    """Files begin with wide dtypes, modules follow the order of layers."""
    files = Files(tmp_path, torch.float64)
    fisher = files.fishers["a"]
    for name, model in files.models.items():
        for key in ("classifier.weight", "classifier.bias"):
            model[key] = model[key].float()
        save_file(model, tmp_path / name / "model.safetensors")
        files.fishers[name].base_model_hash = ""
        files.fishers[name].save(tmp_path / f"{name}.fisher.safetensors")
    for f in fisher.values():
        f *= 1e-25
    fisher["distilbert.embeddings.word_embeddings.weight"][0, 0] = 1
    fisher["classifier.weight"][0, 0] = fisher["classifier.bias"][0] = 2**-53
    fisher.save(tmp_path / "a.fisher.safetensors")
    parameters = {"normalize_fishers": True}
    recipe = files.recipe("gradient_matching", parameters=parameters)
    merganser.merge_recipe(recipe, tmp_path / "out")
    merged = files.merge("gradient_matching", parameters=parameters)
    assert_equal_bits(merged, tmp_path / "out")


def test_wide_models_on_a_half_base_are_rounded_once(tmp_path):
    files = Files(tmp_path)
    wide = {}
    for name in "ab":
        model = {n: t.double() for n, t in files.models[name].items()}
        wide[name] = {n: t + 1e-9 * torch.randn_like(t) for n, t in model.items()}
    half = {n: t.bfloat16() for n, t in files.models["base"].items()}
    merged = merganser.merge(half, [wide["a"], wide["b"]], method="task_arithmetic")
    for name, tensor in half.items():
        theta = tensor.double()
        expected = theta + ((wide["a"][name] - theta) + (wide["b"][name] - theta))
        assert torch.equal(merged[name], expected.bfloat16()), name


@pytest.mark.parametrize(
    ("method", "parameters"),
    [
        ("gradient_matching", {"delta": 1e-3}),
        ("gradient_matching", {"normalize_fishers": True}),
        ("fisher", {"normalize_fishers": {"filter": "attention", "value": 1}}),
        ("block_gradient_matching", {"normalize_fishers": True, "ridge": 0.1}),
        ("regmean", {"off_diagonal": 0.5, "normalize": False}),
        ("removal", {"clamp": 0.75}),
        ("ewr", {"floor": [1e-9, 1e-7]}),
        ("linear", {"normalize": False}),
        ("task_arithmetic", {"normalize": True}),
        ("task_arithmetic", {"lambda": 0.7}),
        ("task_arithmetic", {"lambda": [0.1, 0.9]}),
        ("ties", {"normalize": False}),
    ],
)
def test_parameters(files, method, parameters, tmp_path):
    recipe = files.recipe(method, parameters=parameters)
    merganser.merge_recipe(recipe, tmp_path / "out")
    merged = files.merge(method, parameters=parameters)
    assert_equal_bits(merged, tmp_path / "out")
    default = files.merge(method)
    assert any(not torch.equal(merged[name], default[name]) for name in merged)


@pytest.mark.parametrize(
    "method", ["linear", "fisher", "gradient_matching", "ties", "regmean"]
)
def test_weights_of_each_tensor(files, method, tmp_path):
    weights = [BY_NAME, [0.5, 1]]
    recipe = files.recipe(method, weights)
    merganser.merge_recipe(recipe, tmp_path / "out")
    merged = files.merge(method, weights)
    assert_equal_bits(merged, tmp_path / "out")
    default = files.merge(method)
    assert any(not torch.equal(merged[name], default[name]) for name in merged)


@pytest.mark.parametrize("weight", [BY_NAME[0] | {"value": 2}, torch.tensor(0.5)])
def test_one_weight_for_all(files, weight):
    single = files.merge("task_arithmetic", weight)
    each = files.merge("task_arithmetic", [weight, weight])
    assert all(torch.equal(single[name], each[name]) for name in each)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("method", WHOLE)
def test_whole_tensors(tmp_path, method, dtype):
    files = Files(tmp_path, dtype)
    recipe = files.recipe(method, parameters=WHOLE[method])
    merganser.merge_recipe(recipe, tmp_path / "out")
    weights = None if method == "model_stock" else WEIGHTS
    merged = files.merge(method, weights, parameters=WHOLE[method])
    assert_equal_bits(merged, tmp_path / "out")


@pytest.mark.parametrize("method", ONE_MODEL)
def test_one_model(files, method, tmp_path):
    options = {"names": ["a"], "parameters": ONE_MODEL[method]}
    merganser.merge_recipe(files.recipe(method, None, **options), tmp_path / "out")
    assert_equal_bits(files.merge(method, None, **options), tmp_path / "out")


@pytest.mark.parametrize("stored_twice", [False, True])
@pytest.mark.parametrize("method", ["dare_ties", "della", "linear"])
def test_tied_tensors(tmp_path, method, stored_twice):
    """Both names get the random choices of the stored one."""
    models = {}
    for seed, name in enumerate(("base", "a", "b")):
        torch.manual_seed(seed)
        models[name] = GPT2LMHeadModel(
            GPT2Config(vocab_size=20, n_embd=8, n_layer=1, n_head=2, n_positions=8)
        )
        models[name].save_pretrained(tmp_path / name)
        if stored_twice:
            state = {n: t.clone() for n, t in models[name].state_dict().items()}
            save_file(state, tmp_path / name / "model.safetensors", {"format": "pt"})
    parameters = {"density": 0.5} if method != "linear" else {}
    recipe = {
        "merge_method": method,
        "base_model": "base",
        "models": [{"model": "a"}, {"model": "b"}],
        "parameters": parameters,
    }
    (tmp_path / "r.yaml").write_text(json.dumps(recipe))
    merganser.merge_recipe(tmp_path / "r.yaml", tmp_path / "out")
    merged = merganser.merge(
        models["base"], [models["a"], models["b"]], method=method, parameters=parameters
    )
    assert torch.equal(merged["lm_head.weight"], merged["transformer.wte.weight"])
    written = load_file(tmp_path / "out" / "model.safetensors")
    states = [load_file(tmp_path / name / "model.safetensors") for name in models]
    from_files = merganser.merge(
        states[0], states[1:], method=method, parameters=parameters
    )
    for name, tensor in written.items():
        assert torch.equal(merged[name], tensor), name
        assert torch.equal(from_files[name], tensor), name


def test_passthrough_copies_zeros_with_their_signs(tmp_path):
    files = Files(tmp_path)
    files.models["a"]["classifier.bias"].fill_(-0.0)
    scale = [{"filter": "attention", "value": 0.7}, {"value": 1}]
    merged = files.merge("passthrough", None, names=["a"], parameters={"scale": scale})
    assert merged["classifier.bias"].signbit().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("method", ELEMENTWISE)
def test_by_the_op(files, method, dtype):
    """Runs the GPU's path on the CPU."""
    a = files.arguments(method)
    a["models"] = [
        {name: tensor.to(dtype) for name, tensor in model.items()}
        for model in a["models"]
    ]
    parameters = {"lambda": 0.7} if method == "task_arithmetic" else {}
    if method in ELEMENTWISE[2:6]:
        parameters["normalize_fishers"] = True
    given = [a.get(name) for name in ("base", "models", "fishers", "base_fisher")]
    inputs = read_inputs(find_method(method), *given, None, None, None)
    engine = memory_merge.make_engine(inputs, a["weights"], parameters)
    memory_merge.measure_fishers(engine, inputs)
    merged = merganser.merge(**a, parameters=parameters)
    for name, tensor in merged.items():
        by_op = memory_merge.merge_by_op(engine, inputs, name)
        assert torch.equal(by_op, tensor), name
