"""Methods with sparse task vectors and of whole tensors, recipes that depend on the
tensor, slices, adapters and sweeps, on files."""

import json
import shutil
import subprocess
from pathlib import Path

import merganser
import merge_inputs
import merge_oracle
import numpy
import pytest
import yaml
from command import executable
from merge_inputs import load_model, make_models
from safetensors.numpy import load_file, save_file

WEIGHTS = {"a": 0.8, "b": 0.5}
SPARSE = {
    "ties": {"density": 0.3},
    "dare_linear": {"density": 0.6, "seed": 3},
    "dare_ties": {"density": 0.4, "lambda": 1.5},
    "breadcrumbs": {"density": 0.7, "gamma": 0.1},
    "breadcrumbs_ties": {"density": 0.5, "gamma": 0.05, "normalize": True},
    "della": {"density": 0.5, "epsilon": 0.2},
    "della_linear": {"density": 0.7, "epsilon": 0.1, "rescale": False},
    "model_stock": {},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    make_models(folder, num_hidden_layers=4, hidden_size=32)
    return folder


def run(folder, recipe, *arguments, out):
    (folder / "r.yaml").write_text(yaml.safe_dump(recipe))
    process = subprocess.run(
        [executable(), "merge", "r.yaml", str(out), "--quiet", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    return load_model(out)


def models_of(names="ab", **parameters):
    return [
        {"model": name, "parameters": {"weight": WEIGHTS[name], **parameters}}
        for name in names
    ]


def assert_close(found, expected, scale=1.0):
    error = numpy.abs(found - expected).max()
    assert error <= 1e-6 * max(scale, numpy.abs(expected).max())


@pytest.mark.parametrize("method", SPARSE)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_against_the_definition(folder, tmp_path, method, dtype):
    parameters = SPARSE[method]
    recipe = {
        "merge_method": method,
        "base_model": "base",
        "models": models_of(),
        "parameters": parameters,
        "dtype": dtype,
    }
    found = run(folder, recipe, out=tmp_path / "out")
    base, a, b = (load_model(folder / name) for name in ("base", "a", "b"))
    for name in base:
        expected = merge_oracle.merge(
            method,
            name,
            base[name],
            [a[name], b[name]],
            list(WEIGHTS.values()),
            **parameters,
        )
        assert_close(found[name], expected)


@pytest.mark.parametrize("method", SPARSE)
def test_not_finite_where_it_is_dropped(folder, tmp_path, method):
    """Every input is looked at, whether the output depends on it or not."""
    for name in ("base", "a", "b"):
        shutil.copytree(folder / name, tmp_path / name)
    weights = tmp_path / "a" / "model.safetensors"
    state = load_model(tmp_path / "a")
    name = "classifier.weight"
    state[name].reshape(-1)[5] = numpy.nan
    save_file(state, weights, {"format": "pt"})
    recipe = {
        "merge_method": method,
        "base_model": "base",
        "models": models_of(),
        "parameters": {"density": 0, "epsilon": 0},
    }
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(recipe))
    process = subprocess.run(
        [executable(), "merge", "r.yaml", "out", "--quiet"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 2
    assert f"tensor '{name}' is nan at index 5" in process.stderr
    assert not (tmp_path / "out").exists()


def test_della_of_density_0_is_the_base(folder, tmp_path):
    recipe = {
        "merge_method": "della",
        "base_model": "base",
        "models": models_of(density=0),
    }
    found = run(folder, recipe, out=tmp_path / "out")
    for name, value in load_model(folder / "base").items():
        assert numpy.array_equal(found[name], value)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("step", [2**-20, 0.25])  # differences are exact; many equal
def test_della_of_long_rows(tmp_path, dtype, step):
    """Rows longer than a chunk, which are ranked without being sorted."""
    shapes = {"one": (100_003,), "some": (3, 2, 20_000)}
    for name in ("base", "a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
        tensors = {
            key: (step * numpy.round(numpy.random.standard_normal(shape) / step))
            for key, shape in shapes.items()
        }
        tensors = {key: x.astype(dtype) for key, x in tensors.items()}
        save_file(tensors, tmp_path / name / "model.safetensors")
    recipe = {
        "merge_method": "della_linear",
        "base_model": "base",
        "models": models_of(),
        "parameters": {"density": 0.4, "epsilon": 0.4, "seed": 1},
    }
    found = run(tmp_path, recipe, "--threads", "3", out=tmp_path / "out")
    base, a, b = (load_model(tmp_path / name) for name in ("base", "a", "b"))
    for name in shapes:
        expected = merge_oracle.merge(
            "della_linear",
            name,
            base[name],
            [a[name], b[name]],
            list(WEIGHTS.values()),
            **recipe["parameters"],
        )
        assert_close(found[name], expected)


@pytest.mark.parametrize("method", ["fisher", "gradient_matching"])
def test_normalized_fishers(folder, tmp_path, method):
    made = json.loads(merge_inputs.recipe(method))
    for model in made["models"]:
        model["num_examples"] = 10**6  # is not used
    made["parameters"] = {"delta": 0, "normalize_fishers": True}
    found = run(folder, made, "--threads", "1", out=tmp_path / "out")
    run(folder, made, "--threads", "3", out=tmp_path / "three")
    base, a, b = (load_model(folder / name) for name in ("base", "a", "b"))
    h = {}
    for name in ("base", "a", "b"):
        f = load_file(folder / f"{name}_fisher.safetensors")
        mean = numpy.concatenate([x.reshape(-1).astype(float) for x in f.values()])
        h[name] = {key: x.astype(float) / mean.mean() for key, x in f.items()}
    wa, wb = merge_inputs.WEIGHTS.values()
    for key, value in found.items():
        h0, ha, hb = (h[name][key] for name in ("base", "a", "b"))
        ta, tb = a[key] - base[key].astype(float), b[key] - base[key].astype(float)
        if method == "fisher":
            expected = (wa * ha * a[key] + wb * hb * b[key]) / (wa * ha + wb * hb)
        else:
            update = wa * (h0 + ha) * ta + wb * (h0 + hb) * tb
            expected = base[key] + update / (h0 + wa * ha + wb * hb)
        assert_close(value, expected)
    one, three = (tmp_path / name / "model.safetensors" for name in ("out", "three"))
    assert one.read_bytes() == three.read_bytes()


def test_weights_that_cancel(folder, tmp_path):
    """Divided by those that agree, never by their sum."""
    recipe = {
        "merge_method": "ties",
        "base_model": "base",
        "models": [
            {"model": name, "parameters": {"weight": weight}}
            for name, weight in (("a", 1), ("b", -1))
        ],
    }
    found = run(folder, recipe, out=tmp_path / "out")
    base, a, b = (load_model(folder / name) for name in ("base", "a", "b"))
    for name in base:
        expected = merge_oracle.merge(
            "ties", name, base[name], [a[name], b[name]], [1, -1]
        )
        assert_close(found[name], expected)


def test_the_first_model_gives_the_types(folder, tmp_path):
    for name, dtype in (("z", numpy.float32), ("h", numpy.float16)):
        shutil.copytree(folder / "a", tmp_path / name)
        state = {k: v.astype(dtype) for k, v in load_model(folder / "a").items()}
        save_file(state, tmp_path / name / "model.safetensors", {"format": "pt"})
    models = [{"model": str(tmp_path / name)} for name in ("z", "h")]
    for order, dtype in ((1, numpy.float32), (-1, numpy.float16)):
        recipe = {"merge_method": "linear", "models": models[::order]}
        found = run(folder, recipe, out=tmp_path / f"out{order}")
        assert {value.dtype.type for value in found.values()} == {dtype}


@pytest.mark.parametrize("t", [0, 0.3, 1])
def test_slerp(folder, tmp_path, t):
    recipe = {
        "merge_method": "slerp",
        "base_model": "base",
        "models": [{"model": "base"}, {"model": "a"}],  # as mergekit's users write
        "parameters": {"t": t},
    }
    found = run(folder, recipe, out=tmp_path / "out")
    base, a = load_model(folder / "base"), load_model(folder / "a")
    for name in base:
        assert_close(
            found[name],
            merge_oracle.slerp(base[name].astype(float), a[name].astype(float), t),
        )


@pytest.mark.parametrize("method", ["ties", "dare_ties", "della", "linear"])
def test_the_same_bytes(folder, tmp_path, method):
    """For any number of threads, any memory, and models in any order."""
    recipe = {
        "merge_method": method,
        "base_model": "base",
        "models": models_of(),
        "parameters": {"density": 0.5, "rescale": True},
    }
    run(folder, recipe, "--threads", "1", out=tmp_path / "one")
    expected = (tmp_path / "one" / "model.safetensors").read_bytes()
    start = expected.index(b"}")  # the header holds the recipe
    for i, arguments in enumerate([["--threads", "3"], ["--memory", "12MiB"]]):
        run(folder, recipe, *arguments, out=tmp_path / str(i))
        assert (tmp_path / str(i) / "model.safetensors").read_bytes() == expected
    recipe["models"] = recipe["models"][::-1]
    turned = run(folder, recipe, out=tmp_path / "turned")
    first = load_model(tmp_path / "one")
    assert start and all(
        turned[name].tobytes() == first[name].tobytes() for name in first
    )


def test_settings_of_tensors(folder, tmp_path):
    recipe = {
        "merge_method": "task_arithmetic",
        "base_model": "base",
        "models": [
            {
                "model": "a",
                "parameters": {
                    "weight": [
                        {"filter": "attention", "value": [0, 0.3, 0.9]},
                        {"filter": "embeddings", "value": 0.25},
                        {"value": 2},
                    ]
                },
            }
        ],
    }
    found = run(folder, recipe, out=tmp_path / "out")
    base, a = load_model(folder / "base"), load_model(folder / "a")
    interpolated = numpy.interp([0, 1 / 3, 2 / 3, 1], [0, 0.5, 1], [0, 0.3, 0.9])
    for name in base:
        if "attention" in name:
            weight = interpolated[int(name.split("layer.")[1].split(".")[0])]
        else:
            weight = 0.25 if "embeddings" in name else 2
        expected = base[name] + weight * (a[name].astype(float) - base[name])
        assert_close(found[name], expected)


def test_sweep(folder, tmp_path):
    def recipe(weight):
        return {
            "merge_method": "task_arithmetic",
            "base_model": "base",
            "models": [{"model": "a"}, {"model": "b"}],
            "parameters": {"weight": weight},
        }

    (folder / "r.yaml").write_text(yaml.safe_dump(recipe({"sweep": [0.2, 0.4]})))
    command = [executable(), "merge", "r.yaml", str(tmp_path / "out"), "--json"]
    report = json.loads(subprocess.check_output(command, cwd=folder))
    whole = 3 * sum(x.nbytes for x in load_model(folder / "base").values())
    assert report["bytes_read"] == whole  # once, for both
    for weight in (0.2, 0.4):
        alone = run(folder, recipe(weight), out=tmp_path / str(weight))
        swept = load_model(tmp_path / "out" / f"weight={weight}")
        assert all(swept[k].tobytes() == alone[k].tobytes() for k in alone)
        assert (
            subprocess.run(
                [executable(), "verify", tmp_path / "out" / f"weight={weight}", "-q"],
                cwd=folder,
                check=False,
            ).returncode
            == 0
        )


def test_slices(folder, tmp_path):
    from transformers import AutoModelForSequenceClassification

    recipe = {
        "merge_method": "passthrough",
        "slices": [
            {"sources": [{"model": "a", "layer_range": [0, 3]}]},
            {"sources": [{"model": "b", "layer_range": [1, 4]}]},
        ],
    }
    found = run(folder, recipe, out=tmp_path / "out")
    a, b = load_model(folder / "a"), load_model(folder / "b")
    origin = [(a, 0), (a, 1), (a, 2), (b, 1), (b, 2), (b, 3)]
    for name, values in found.items():
        if ".layer." in name:
            head, _, tail = name.partition(".layer.")
            layer, _, rest = tail.partition(".")
            model, source = origin[int(layer)]
            expected = model[f"{head}.layer.{source}.{rest}"]
        else:
            expected = (a if "embeddings" in name else b)[name]
        assert numpy.array_equal(values, expected), name
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out")
    assert model.config.num_hidden_layers == 6
    assert len(found) == len(model.state_dict())


def test_slices_take_the_entries_of_their_layers(folder, tmp_path):
    """Of lists in config.json that have one for each layer."""
    shutil.copytree(folder / "a", tmp_path / "a")
    file = tmp_path / "a" / "config.json"
    config = json.loads(file.read_text())
    kinds = ["full", "sliding", "full", "linear"]
    others = {"eos_token_id": [1, 2, 3, 4], "layer_norm_weights": [1, 2]}
    file.write_text(json.dumps(config | {"layer_types": kinds} | others))
    ranges = [[1, 4], [0, 2]]
    model = str(tmp_path / "a")
    recipe = {
        "merge_method": "passthrough",
        "slices": [{"sources": [{"model": model, "layer_range": r}]} for r in ranges],
    }
    run(folder, recipe, out=tmp_path / "out")
    written = json.loads((tmp_path / "out" / "config.json").read_text())
    assert written["num_hidden_layers"] == 5
    assert written["layer_types"] == ["sliding", "full", "linear", "full", "sliding"]
    assert all(written[key] == value for key, value in others.items())


@pytest.mark.parametrize("seed", [1.5, [1, 2], -1])
def test_seeds_are_whole_numbers(folder, seed):
    recipe = {
        "merge_method": "dare_linear",
        "base_model": "base",
        "models": models_of(density=0.5),
        "parameters": {"seed": seed},
    }
    (folder / "r.yaml").write_text(yaml.safe_dump(recipe))
    command = [executable(), "plan", "r.yaml"]
    process = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False
    )
    assert process.returncode == 2
    assert "seed" in process.stderr


def test_slices_lose_no_tensors(folder, tmp_path):
    """A head that the last slice's model has and the first one's has not."""
    shutil.copytree(folder / "a", tmp_path / "bare")
    state = load_model(tmp_path / "bare")
    del state["classifier.weight"]
    save_file(state, tmp_path / "bare" / "model.safetensors", {"format": "pt"})
    recipe = {
        "merge_method": "passthrough",
        "slices": [
            {"sources": [{"model": str(tmp_path / "bare"), "layer_range": [0, 3]}]},
            {"sources": [{"model": "b", "layer_range": [1, 4]}]},
        ],
    }
    (folder / "r.yaml").write_text(yaml.safe_dump(recipe))
    process = subprocess.run(
        [executable(), "plan", "r.yaml"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 2
    assert "b has tensor 'classifier.weight', which" in process.stderr


def test_a_plan_names_the_outputs_of_a_sweep(folder):
    recipe = {
        "merge_method": "linear",
        "models": models_of(weight={"sweep": [0.2, 0.4]}),
    }
    (folder / "r.yaml").write_text(yaml.safe_dump(recipe))
    command = [executable(), "plan", "r.yaml"]
    text = subprocess.check_output(command, cwd=folder, text=True)
    assert "2 models, in 1, 2\n" in text
    plan = json.loads(subprocess.check_output([*command, "--json"], cwd=folder))
    assert plan["outputs"] == ["1", "2"]
    written = sum(tensor["bytes_written"] for tensor in plan["tensors"])
    assert written == plan["bytes_written"]


def test_slices_with_a_base_and_depth(folder, tmp_path):
    recipe = {
        "merge_method": "slerp",
        "base_model": "base",
        "slices": [
            {
                "sources": [
                    {"model": "base", "layer_range": [0, 2]},
                    {"model": "a", "layer_range": [2, 4]},
                ]
            }
        ],
        "parameters": {"t": [0.1, 0.9]},
    }
    found = run(folder, recipe, out=tmp_path / "out")
    base, a = load_model(folder / "base"), load_model(folder / "a")
    for name in found:
        if ".layer." not in name:
            continue
        layer = int(name.split(".layer.")[1].split(".")[0])
        other = name.replace(f".layer.{layer}.", f".layer.{layer + 2}.")
        expected = merge_oracle.slerp(
            base[name].astype(float), a[other].astype(float), 0.1 + 0.8 * layer
        )
        assert_close(found[name], expected)


@pytest.mark.parametrize("rank_stabilised", [False, True])
def test_adapters_against_peft(folder, tmp_path, rank_stabilised):
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(folder / "base")
    torch.manual_seed(0)
    adapted = get_peft_model(
        model,
        LoraConfig(
            r=5,
            lora_alpha=7,
            use_rslora=rank_stabilised,
            target_modules=["query", "dense"],
            rank_pattern={"query": 3},
            task_type="SEQ_CLS",
        ),
    )
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.copy_(0.1 * torch.randn_like(parameter))
    adapted.save_pretrained(tmp_path / "adapter")
    expected = adapted.merge_and_unload().state_dict()
    recipe = {
        "merge_method": "linear",
        "models": [{"model": f"base+{tmp_path / 'adapter'}"}],
    }
    found = run(folder, recipe, out=tmp_path / "out")
    assert found.keys() == expected.keys()
    for name, values in found.items():
        assert_close(values, expected[name].numpy())


def test_adapters_are_read_once_per_tensor(tmp_path):
    """And not for every chunk of it, where several models have one."""
    counters = Path("/proc/self/io")
    if not counters.exists():
        pytest.skip("the system does not count what is read")
    random = numpy.random.default_rng(0)
    size, rank = 512, 64
    models = []
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "config.json").write_text("{}")
    weights = random.standard_normal((size, size), numpy.float32)
    save_file({"w.weight": weights}, tmp_path / "base" / "model.safetensors")
    for name in ("x", "y"):
        adapter = tmp_path / name
        adapter.mkdir()
        config = {"peft_type": "LORA", "lora_alpha": 4, "r": rank}
        (adapter / "adapter_config.json").write_text(json.dumps(config))
        shapes = {"A": (rank, size), "B": (size, rank)}
        tensors = {
            f"base_model.model.w.lora_{matrix}.weight": random.standard_normal(
                shape, numpy.float32
            )
            for matrix, shape in shapes.items()
        }
        save_file(tensors, adapter / "adapter_model.safetensors")
        models.append({"model": "base", "adapter": name})
    recipe = {"merge_method": "linear", "models": models}
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(recipe))

    def read():
        return int(counters.read_text().split()[1])

    before = read()
    merganser.merge_recipe(tmp_path / "r.yaml", tmp_path / "out", threads=1)
    # The base for each model, the adapters for the merge and for their hashes.
    expected = 4 * (2 * size * size + 2 * 2 * 2 * rank * size)
    assert read() - before < 1.2 * expected


@pytest.mark.parametrize("transposed", [False, True])
def test_adapters_of_two_models(tmp_path, transposed):
    """Weights as (out, in), or (in, out) as in GPT-2's Conv1D; several chunks."""
    random = numpy.random.default_rng(0)
    width, height, rank = 517, 130, 3
    weights = random.standard_normal((height, width))
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "config.json").write_text("{}")
    save_file({"w.weight": weights}, tmp_path / "base" / "model.safetensors")
    updates = []
    for name in ("x", "y"):
        adapter = tmp_path / name
        adapter.mkdir()
        config = {"peft_type": "LORA", "lora_alpha": 6, "r": rank}
        (adapter / "adapter_config.json").write_text(
            json.dumps(config | {"fan_in_fan_out": transposed})
        )
        a = random.standard_normal((rank, height if transposed else width))
        b = random.standard_normal((width if transposed else height, rank))
        prefix = "base_model.model.w"
        save_file(
            {f"{prefix}.lora_A.weight": a, f"{prefix}.lora_B.weight": b},
            adapter / "adapter_model.safetensors",
        )
        updates.append(2 * (b @ a).T if transposed else 2 * b @ a)
    models = [{"model": "base", "adapter": name} for name in ("x", "y")]
    found = run(
        tmp_path, {"merge_method": "linear", "models": models}, out=tmp_path / "out"
    )
    assert numpy.abs(found["w.weight"] - weights - sum(updates) / 2).max() < 1e-12


@pytest.mark.parametrize("matrix", ["A", "B"])
def test_adapters_that_are_not_finite(folder, tmp_path, matrix):
    """The adapter's file and tensor are named, not the model's."""
    name = "bert.pooler.dense"
    tensors = {
        f"base_model.model.{name}.lora_A.weight": numpy.ones((2, 32), numpy.float32),
        f"base_model.model.{name}.lora_B.weight": numpy.ones((32, 2), numpy.float32),
    }
    bad = f"base_model.model.{name}.lora_{matrix}.weight"
    tensors[bad].reshape(-1)[7] = numpy.nan
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    save_file(tensors, adapter / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "lora_alpha": 4, "r": 2}
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    (folder / "r.yaml").write_text(
        f"merge_method: linear\nmodels: [{{model: base, adapter: {adapter}}}]\n"
    )
    process = subprocess.run(
        [executable(), "merge", "r.yaml", tmp_path / "out", "--quiet"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 2
    place = f"{adapter}/adapter_model.safetensors: tensor '{bad}' is nan at index 7"
    assert place in process.stderr


def test_methods_verb():
    names = {
        method["name"]
        for method in json.loads(
            subprocess.check_output([executable(), "methods", "--json"])
        )
    }
    assert {"ties", "gradient_matching", "passthrough"} <= names
    document = Path(__file__).parents[2] / "docs" / "recipes.md"
    if document.exists():  # else the tests run away from their clone
        tables = subprocess.check_output([executable(), "methods", "--markdown"])
        assert tables.decode() in document.read_text(encoding="utf-8")
