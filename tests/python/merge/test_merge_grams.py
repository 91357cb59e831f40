"""regmean and block_gradient_matching, against their definitions in float64."""

import json
import subprocess

import merganser
import numpy
import pytest
import torch
from command import executable
from merge_inputs import (
    DELTA,
    NUM_EXAMPLES,
    WEIGHTS,
    content_hash,
    load_model,
    make_models,
    oracle,
    recipe,
)
from safetensors.numpy import load_file, save_file
from transformers.pytorch_utils import Conv1D

OFF_DIAGONAL, RIDGE = 0.8, 1e-3
GPT2 = {"model_type": "gpt2"}


def has_gram(name, shape):
    return len(shape) == 2 and "embeddings" not in name


def make_gram(folder, name, change=lambda tensors: None):
    random = numpy.random.default_rng(NUM_EXAMPLES[name])
    tensors = {}
    for key, value in load_model(folder / name).items():
        if has_gram(key, value.shape):
            # Fewer tokens than inputs: not of full rank.
            a = random.standard_normal((value.shape[1] // 2, value.shape[1]))
            tensors[key] = (a.T @ a / NUM_EXAMPLES[name]).astype(numpy.float32)
    change(tensors)
    metadata = {
        "format_version": "1",
        "estimator": "gram",
        "num_examples": str(NUM_EXAMPLES[name]),
        "num_examples_used": "10",
        "samples": "0",
        "seed": "0",
        "labels": "",
        "base_model_hash": content_hash(folder / name),
    }
    save_file(tensors, folder / f"{name}_gram.safetensors", metadata)


@pytest.fixture
def folder(tmp_path):
    make_models(tmp_path)
    for name in NUM_EXAMPLES:
        make_gram(tmp_path, name)
    return tmp_path


def write(folder, method, models=("a", "b"), **parameters):
    made = json.loads(recipe(method))
    made["base_gram"] = "base_gram.safetensors"
    made["models"] = [m for m in made["models"] if m["model"] in models]
    for model in made["models"]:
        model["gram"] = f"{model['model']}_gram.safetensors"
    made["parameters"] |= {"ridge": RIDGE, "off_diagonal": OFF_DIAGONAL} | parameters
    (folder / "r.yaml").write_text(json.dumps(made))


def merge(folder, *arguments, out="out"):
    return subprocess.run(
        [executable(), "merge", "r.yaml", out, "--quiet", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


def definition(folder, method, key):
    base, a, b = (load_model(folder / n)[key].astype(float) for n in NUM_EXAMPLES)
    g0, ga, gb = (
        NUM_EXAMPLES[n] * load_file(folder / f"{n}_gram.safetensors")[key].astype(float)
        for n in NUM_EXAMPLES
    )
    wa, wb = WEIGHTS.values()
    eye = numpy.eye(len(g0))
    if method == "regmean":
        ga, gb = (
            g * (OFF_DIAGONAL + (1 - OFF_DIAGONAL) * numpy.eye(len(g)))
            for g in (ga, gb)
        )
        ridge = RIDGE * numpy.trace(wa * ga + wb * gb) / len(g0) / (wa + wb)
        ga, gb = ga + ridge * eye, gb + ridge * eye
        return (wa * a @ ga + wb * b @ gb) @ numpy.linalg.inv(wa * ga + wb * gb)
    g0 = g0 + RIDGE * numpy.trace(g0 + wa * ga + wb * gb) / len(g0) * eye
    update = wa * (a - base) @ (g0 + ga) + wb * (b - base) @ (g0 + gb)
    return base + update @ numpy.linalg.inv(g0 + wa * ga + wb * gb)


@pytest.mark.parametrize(
    ("method", "others"),
    [("regmean", "linear"), ("block_gradient_matching", "gradient_matching")],
)
def test_against_the_definition(folder, method, others):
    write(folder, method)
    process = merge(folder)
    assert process.returncode == 0, process.stderr
    found = load_model(folder / "out")
    elementwise = oracle(folder, others)
    solved = 0
    for key, value in found.items():
        if has_gram(key, value.shape):
            expected = definition(folder, method, key)
            solved += 1
        else:
            expected = elementwise[key]
        error = numpy.abs(value - expected).max()
        assert error <= 1e-6 * max(1, numpy.abs(expected).max()), key
    assert solved > 10
    # Any number of threads, and Python, give the same bytes.
    merge(folder, "--threads", "1", out="one").check_returncode()
    merganser.merge_recipe(folder / "r.yaml", folder / "python", threads=3)
    weights = (folder / "out" / "model.safetensors").read_bytes()
    for other in ("one", "python"):
        assert (folder / other / "model.safetensors").read_bytes() == weights


def test_normalized_fishers(folder):
    """Grams stay N G; the means are those of the tensors that Fishers merge."""
    write(folder, "block_gradient_matching", normalize_fishers=True)
    merge(folder).check_returncode()
    models = {n: load_model(folder / n) for n in NUM_EXAMPLES}
    found = load_model(folder / "out")
    elementwise = [key for key, x in found.items() if not has_gram(key, x.shape)]
    assert elementwise and len(found) - len(elementwise) > 10
    h = {}
    for name in NUM_EXAMPLES:
        fisher = load_file(folder / f"{name}_fisher.safetensors")
        values = numpy.concatenate([fisher[key].ravel() for key in elementwise])
        mean = values.mean(dtype=float)
        h[name] = {key: fisher[key].astype(float) / mean for key in elementwise}
    for key, value in found.items():
        if key in elementwise:
            base = models["base"][key].astype(float)
            h0, rest = h["base"][key] + DELTA, 0
            update = 0
            for name, w in WEIGHTS.items():
                update += w * (h0 + h[name][key]) * (models[name][key] - base)
                rest += w * h[name][key]
            expected = base + update / (h0 + rest)
        else:
            expected = definition(folder, "block_gradient_matching", key)
        error = numpy.abs(value - expected).max()
        assert error <= 1e-5 * max(1, numpy.abs(expected).max()), key


@pytest.mark.parametrize("method", ["regmean", "block_gradient_matching"])
def test_one_model_comes_back(folder, method):
    write(folder, method, models=["a"])
    merge(folder).check_returncode()
    a = load_model(folder / "a")
    for key, value in load_model(folder / "out").items():
        assert numpy.abs(value - a[key]).max() < 1e-6, key


def no_tokens(tensors):
    for value in tensors.values():
        value[...] = 0


def test_without_tokens(folder):
    """The limit is task arithmetic, as for gradient matching without Fishers."""
    write(folder, "block_gradient_matching")
    for name in NUM_EXAMPLES:
        make_gram(folder, name, no_tokens)
    merge(folder).check_returncode()
    expected = oracle(folder, "task_arithmetic")
    for key, value in load_model(folder / "out").items():
        if has_gram(key, value.shape):
            assert numpy.abs(value - expected[key]).max() < 1e-6, key


def test_without_ridge(folder):
    write(folder, "block_gradient_matching", ridge=0)
    for name in NUM_EXAMPLES:
        make_gram(folder, name, no_tokens)
    process = merge(folder)
    assert process.returncode == 2
    assert "do not have full rank; set the parameter ridge to" in process.stderr
    assert not (folder / "out").exists()


def drop(tensors):
    del tensors["classifier.weight"]


def rename(tensors):
    tensors["other.weight"] = tensors.pop("classifier.weight")


def crop(tensors):
    tensors["classifier.weight"] = tensors["classifier.weight"][:, 1:].copy()


def narrow(tensors):
    tensors["classifier.weight"] = tensors["classifier.weight"].astype(numpy.float16)


def skew(tensors):
    tensors["classifier.weight"][0, 1] += 50


def spoil(tensors):
    tensors["classifier.weight"][1, 1] = -1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop, "has no Gram matrix for tensor 'classifier.weight', but other files"),
        (rename, "has Gram matrices of another model, with tensors that a lacks"),
        (crop, "has Gram matrices of another size than the inputs of a"),
        (narrow, "must store Gram matrices as F32 or F64"),
        (skew, "a Gram matrix must be symmetric"),
        (spoil, "tensor 'classifier.weight' is -1 at index 17; a Gram matrix must"),
    ],
)
def test_gram_files_that_do_not_fit(folder, change, message):
    make_gram(folder, "a", change)
    write(folder, "regmean")
    process = merge(folder)
    assert process.returncode == 2
    assert message in process.stderr.replace("\n  ", " ")
    assert not (folder / "out").exists()


def test_other_files(folder):
    write(folder, "regmean")
    text = (folder / "r.yaml").read_text()
    (folder / "r.yaml").write_text(text.replace("a_gram", "b_gram"))
    assert "b_gram.safetensors was estimated on other weights than a" in (
        merge(folder).stderr
    )
    (folder / "r.yaml").write_text(text.replace("a_gram", "a_fisher"))
    assert "contains a Fisher; expected Gram matrices" in merge(folder).stderr
    (folder / "r.yaml").write_text(text.replace('"gram"', '"adapter"'))
    assert "needs the key gram" in merge(folder).stderr


def test_nan_in_a_weight(folder):
    weights = folder / "a" / "model.safetensors"
    state = load_file(weights)
    state["classifier.weight"][0, 3] = numpy.nan
    save_file(state, weights, {"format": "pt"})
    make_gram(folder, "a")
    write(folder, "regmean")
    process = merge(folder)
    assert process.returncode == 2
    assert "tensor 'classifier.weight' is nan at index 3" in process.stderr
    assert not (folder / "out").exists()


def test_plan_tells_the_memory(folder):
    write(folder, "regmean")
    process = merge(folder, "--memory", "1MB")
    assert process.returncode == 2 and "more than the limit" in process.stderr
    process = subprocess.run(
        [executable(), "plan", "r.yaml", "--memory", "1MB"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 2 and "more than the limit" in process.stderr
    plan = json.loads(
        subprocess.check_output(
            [executable(), "plan", "r.yaml", "--json", "--threads", "1"], cwd=folder
        )
    )
    assert plan["peak_memory"] > 1_000_000
    assert plan["models"][0]["gram"] == "a_gram.safetensors"
    assert plan["models"][0]["gram_num_examples"] == NUM_EXAMPLES["a"]
    text = subprocess.check_output(
        [executable(), "plan", "r.yaml"], cwd=folder, text=True
    )
    assert "examples  Gram matrices" in text and "a_gram.safetensors" in text
    solved = [line for line in text.splitlines() if "merge with Gram matrices" in line]
    assert len(solved) == len(load_file(folder / "a_gram.safetensors"))


def write_task_vectors(folder, method, num_examples=None, base_gram=False, **more):
    write(folder, method, **more)
    made = json.loads((folder / "r.yaml").read_text())
    if not base_gram:
        del made["base_gram"]
    for model in made["models"]:
        model["gram"] = "task_vectors"
        if num_examples is not None:
            model["num_examples"] = num_examples[model["model"]]
    (folder / "r.yaml").write_text(json.dumps(made))


def definition_of_task_vectors(folder, method, key, counts, base_gram=False):
    """docs/method.md, section 2, with (tau^T tau) / |tau|^2 as a mean Gram matrix."""
    base, a, b = (load_model(folder / n)[key].astype(float) for n in NUM_EXAMPLES)
    g0, scale = 0 * base.T @ base, 1
    if base_gram:
        mean = load_file(folder / "base_gram.safetensors")[key].astype(float)
        g0, scale = NUM_EXAMPLES["base"] * mean, numpy.trace(mean)
    eye = numpy.eye(len(g0))
    taus = [a - base, b - base]
    grams = [
        n * scale * tau.T @ tau / numpy.linalg.norm(tau) ** 2
        for tau, n in zip(taus, counts, strict=True)
    ]
    weights = list(WEIGHTS.values())
    if method == "regmean":
        grams = [g * (OFF_DIAGONAL + (1 - OFF_DIAGONAL) * eye) for g in grams]
    total = g0 + sum(w * g for w, g in zip(weights, grams, strict=True))
    ridge = RIDGE * numpy.trace(total) / len(total) * eye
    if method == "regmean":
        grams = [g + ridge / sum(weights) for g in grams]
        parts = zip(weights, [a, b], grams, strict=True)
        return sum(w * x @ g for w, x, g in parts) @ numpy.linalg.inv(total + ridge)
    g0 = g0 + ridge
    parts = zip(weights, taus, grams, strict=True)
    update = sum(w * tau @ (g0 + g) for w, tau, g in parts)
    return base + update @ numpy.linalg.inv(total + ridge)


@pytest.mark.parametrize(
    ("method", "others", "options"),
    [
        ("regmean", "linear", {}),
        ("regmean", "linear", {"num_examples": {"a": 3, "b": 5}}),
        ("block_gradient_matching", "gradient_matching", {}),
        ("block_gradient_matching", "gradient_matching", {"base_gram": True}),
    ],
)
def test_task_vectors(folder, method, others, options):
    """In place of files: the stationary point of WUDI (arXiv 2503.08099)."""
    write_task_vectors(folder, method, **options)
    process = merge(folder)
    assert process.returncode == 0, process.stderr
    counts = {"a": 1, "b": 1} if method == "regmean" else NUM_EXAMPLES
    counts = options.get("num_examples", counts)
    elementwise = oracle(folder, others)
    solved = 0
    for key, value in load_model(folder / "out").items():
        expected = elementwise[key]
        if has_gram(key, value.shape):
            expected = definition_of_task_vectors(
                folder,
                method,
                key,
                [counts["a"], counts["b"]],
                options.get("base_gram", False),
            )
            solved += 1
        error = numpy.abs(value - expected).max()
        assert error <= 1e-6 * max(1, numpy.abs(expected).max()), key
    assert solved > 10


def test_task_vectors_are_stationary(folder):
    """WUDI's gradient, of sum |(W - W_t) tau_t^T|^2 / |tau_t|^2, is 0."""
    options = {"ridge": 1e-12, "off_diagonal": 1}
    write_task_vectors(folder, "regmean", **options)
    made = json.loads((folder / "r.yaml").read_text()) | {"dtype": "float64"}
    for model in made["models"]:
        model["parameters"] = {"weight": 1}
    (folder / "r.yaml").write_text(json.dumps(made))
    merge(folder).check_returncode()
    found = load_model(folder / "out")
    base, *models = (load_model(folder / name) for name in NUM_EXAMPLES)
    for key, value in found.items():
        if not has_gram(key, value.shape):
            continue
        gradient = largest = 0
        for model in models:
            tau = model[key].astype(float) - base[key].astype(float)
            gram = tau.T @ tau / numpy.linalg.norm(tau) ** 2
            gradient = gradient + (value - model[key]) @ gram
            largest = max(largest, numpy.abs(tau @ gram).max())
        assert numpy.abs(gradient).max() < 1e-6 * largest, key


def tensors_of(folder):
    return {key: torch.from_numpy(x) for key, x in load_model(folder).items()}


def test_task_vectors_in_memory(folder):
    for method, base_gram in (
        ("regmean", False),
        ("block_gradient_matching", False),
        ("block_gradient_matching", True),
    ):
        write_task_vectors(folder, method, base_gram=base_gram)
        merge(folder, out=f"{method}{base_gram}").check_returncode()
        made = json.loads((folder / "r.yaml").read_text())
        used = {"ridge", "off_diagonal" if method == "regmean" else "delta"}
        parameters = {key: x for key, x in made["parameters"].items() if key in used}
        states = {name: tensors_of(folder / name) for name in NUM_EXAMPLES}
        found = merganser.merge(
            states["base"],
            [states["a"], states["b"]],
            [folder / f"{name}_fisher.safetensors" for name in "ab"],
            method,
            list(WEIGHTS.values()),
            base_fisher=folder / "base_fisher.safetensors",
            grams="task_vectors",
            base_gram=folder / "base_gram.safetensors" if base_gram else None,
            parameters=parameters,
        )
        for key, value in load_model(folder / f"{method}{base_gram}").items():
            assert found[key].numpy().tobytes() == value.tobytes(), (method, key)


def test_task_vectors_that_do_not_fit(folder):
    write_task_vectors(folder, "regmean", {"a": 3, "b": 5})
    made = json.loads((folder / "r.yaml").read_text())

    def refusal(change):
        changed = json.loads(json.dumps(made))
        change(changed)
        (folder / "r.yaml").write_text(json.dumps(changed))
        process = merge(folder)
        assert process.returncode == 2
        return process.stderr.replace("\n  ", " ")

    assert "gram: task_vectors needs base_model" in (
        refusal(lambda r: r.pop("base_model"))
    )
    assert "expected gram: task_vectors of every model or of none, got 1 and 1 f" in (
        refusal(lambda r: r["models"][0].update(gram="a_gram.safetensors"))
    )
    assert "expected num_examples of every model or of none, as gram: task_vecto" in (
        refusal(lambda r: r["models"][0].pop("num_examples"))
    )


def test_plan_of_task_vectors(folder):
    write_task_vectors(folder, "regmean")
    command = [executable(), "plan", "r.yaml"]
    text = subprocess.check_output(command, cwd=folder, text=True)
    assert "1         of the task vector" in text
    assert "merge with Gram matrices of task vectors" in text
    plan = json.loads(subprocess.check_output([*command, "--json"], cwd=folder))
    assert plan["models"][0]["gram"] == "task_vectors"
    assert plan["models"][0]["gram_num_examples"] == 1


def test_weights_that_are_stored_transposed(folder):
    write_task_vectors(folder, "regmean")
    for name in NUM_EXAMPLES:
        path = folder / name / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"nested": GPT2}))
    process = merge(folder)
    assert process.returncode == 2
    assert "expects weights of shape (out, in), but the architecture has Conv1D" in (
        process.stderr.replace("\n  ", " ")
    )


def test_modules_that_store_weights_transposed():
    def model():
        return torch.nn.Sequential(Conv1D(3, 2))

    with pytest.raises(merganser.InputError, match="base has Conv1D"):
        merganser.merge(
            model(), [model(), model()], method="regmean", grams="task_vectors"
        )


def test_notes_on_grams_of_task_vectors(folder):
    """A merge that uses the base for them does not say that it leaves it out."""
    for method, noted in (("regmean", False), ("linear", True)):
        write_task_vectors(folder, method)
        text = subprocess.check_output([executable(), "plan", "r.yaml"], cwd=folder)
        assert (f"{method} does not use gram" in text.decode()) == noted
        assert (b"does not use the base's weights" in text) == noted
