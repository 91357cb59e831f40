"""The gradient along the task vector: the executable and merganser.fisher against a
float64 loop over examples."""

import json
import pickle
import shutil

import merganser
import pytest
import safetensors.torch
import torch
import training_inputs
from command import run
from safetensors import safe_open
from transformers import AutoTokenizer, BertForSequenceClassification

COUNTS = {"base": 13, "expert": 9}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A base and an expert with data, and the expert's Fisher by the executable."""
    folder = tmp_path_factory.mktemp("task_vector")
    training_inputs.make_seeded_bert(folder / "base", 5)
    training_inputs.move(folder / "base", folder / "expert", 0.05, 5)
    for seed, (name, count) in enumerate(COUNTS.items()):
        training_inputs.make_data(folder / f"{name}.jsonl", count, seed)
    fisher(folder, folder / "expert.safetensors")
    return folder


def fisher(folder, out, *more, **options):
    return run(
        *("fisher", "--model", folder / "expert", "--data", folder / "expert.jsonl"),
        *("--base", folder / "base", "--base-data", folder / "base.jsonl"),
        *("--out", out, "--max-length", "24", "--batch-size", "4", "-q", *more),
        **options,
    )


def examples(folder, name):
    tokenizer = AutoTokenizer.from_pretrained(folder / "base")
    for line in (folder / f"{name}.jsonl").read_text().splitlines():
        example = json.loads(line)
        yield tokenizer(example["text"], return_tensors="pt"), example["label"]


def load(folder, name):
    return BertForSequenceClassification.from_pretrained(folder / name).eval()


def group_of(name):
    """Blocks of BERT, in words of their own."""
    if ".layer." in name:
        number = name.split(".layer.")[1].split(".")[0]
        part = "attention" if ".attention." in name else "mlp"
        return f"bert.encoder.layer.{number} {part}"
    return "embeddings" if "embeddings" in name else "head"


def definition(folder):
    """Mean and standard error by group, and in total (None): slopes, curvatures."""
    state = load(folder, "base").double().state_dict()
    models = {name: load(folder, name).double() for name in COUNTS}
    tau = {n: p.detach() - state[n] for n, p in models["expert"].named_parameters()}

    def products(model, score):
        """The gradient's product with tau, by group and in total."""
        parameters = dict(model.named_parameters())
        gradients = torch.autograd.grad(score, parameters.values(), retain_graph=True)
        found = {None: 0.0}
        for name, gradient in zip(parameters, gradients, strict=True):
            product = (gradient * tau[name]).sum().item()
            found[None] += product
            found[group_of(name)] = found.get(group_of(name), 0.0) + product
        return found

    slopes, curvatures = [], []
    for inputs, label in examples(folder, "expert"):
        log_p = models["expert"](**inputs).logits[0].log_softmax(0)
        slopes.append(products(models["expert"], -log_p[label]))
    for inputs, _ in examples(folder, "base"):
        log_p = models["base"](**inputs).logits[0].log_softmax(0)
        of_label = [products(models["base"], x) for x in log_p]
        p = log_p.exp().tolist()
        curvatures.append(
            {
                group: sum(q * u[group] ** 2 for q, u in zip(p, of_label, strict=True))
                for group in of_label[0]
            }
        )
    return {
        group: [estimate([row[group] for row in rows]) for rows in (slopes, curvatures)]
        for group in slopes[0]
    }


def estimate(values):
    n, mean = len(values), sum(values) / len(values)
    variance = sum((x - mean) ** 2 for x in values) / (n - 1)
    return mean, (variance / n) ** 0.5


def numbers(found):
    return {
        group: [(x.value, x.standard_error) for x in (along.slope, along.curvature)]
        for group, along in [(None, found.total), *found.groups]
    }


def assert_equal(found, expected, rel):
    assert found.keys() == expected.keys()
    for group, estimates in expected.items():
        for one, other in zip(found[group], estimates, strict=True):
            assert one == pytest.approx(other, rel=rel), group


def test_the_executable_is_the_definition(folder):
    found = merganser.FisherResult.load(folder / "expert.safetensors").task_vector
    assert_equal(numbers(found), definition(folder), 1e-4)
    assert found.num_examples_used == COUNTS["expert"]
    assert found.base_num_examples_used == COUNTS["base"]
    assert found.base_model_hash == merganser.inspect(folder / "base")["content_hash"]


def batches(folder, name, size=4):
    rows = list(examples(folder, name))
    tokenizer = AutoTokenizer.from_pretrained(folder / "base")
    for begin in range(0, len(rows), size):
        some = rows[begin : begin + size]
        inputs = [{n: x[0] for n, x in inputs.items()} for inputs, _ in some]
        labels = torch.tensor([label for _, label in some])
        yield dict(tokenizer.pad(inputs, return_tensors="pt")) | {"labels": labels}


def measure(folder, model, base, **options):
    return merganser.fisher(
        model,
        options.pop("data", list(batches(folder, "expert"))),
        base=base,
        base_data=options.pop("base_data", batches(folder, "base")),
        **options,
    )


@pytest.mark.slow
def test_python_agrees_with_the_executable(folder, tmp_path):
    model = load(folder, "expert")
    before = {n: x.clone() for n, x in model.state_dict().items()}
    seen = []
    result = measure(
        folder,
        model,
        folder / "base",
        progress=lambda done, total, text: seen.append((done, text)),
    )
    expected = merganser.FisherResult.load(folder / "expert.safetensors")
    found = result.task_vector
    assert_equal(numbers(found), numbers(expected.task_vector), 1e-5)
    assert found.base_model_hash == expected.task_vector.base_model_hash
    assert [x for x in seen if x[1]] == [(n, "base") for n in (4, 8, 12, 13)]
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])
    # Kept by files and copies.
    result.save(tmp_path / "f.safetensors")
    loaded = merganser.FisherResult.load(tmp_path / "f.safetensors")
    assert loaded.task_vector.to_json() == found.to_json()
    assert pickle.loads(pickle.dumps(found)).to_json() == found.to_json()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["module", "state dict"])
def test_bases_in_memory(folder, kind):
    model, base = load(folder, "expert").double(), load(folder, "base").double()
    given = base if kind == "module" else base.state_dict()
    found = measure(folder, model, given, estimator="empirical").task_vector
    assert_equal(numbers(found), definition(folder), 1e-9)
    if kind == "state dict":
        assert found.base_model_hash == ""


@pytest.mark.slow
def test_a_model_equal_to_its_base(folder):
    model = load(folder, "expert")
    result = measure(folder, model, model.state_dict())
    total = result.task_vector.total
    assert (total.slope.value, total.curvature.value) == (0, 0)


@pytest.mark.slow
def test_bad_input(folder, tmp_path):
    model, base = load(folder, "expert"), load(folder, "base")
    with pytest.raises(merganser.InputError, match="base and base_data.*together"):
        merganser.fisher(model, list(batches(folder, "expert")), base=base)
    unlabelled = [
        {n: x for n, x in batch.items() if n != "labels"}
        for batch in batches(folder, "expert")
    ]
    with pytest.raises(merganser.InputError, match="base needs the labels of data"):
        measure(folder, model, base, data=unlabelled)
    with pytest.raises(
        merganser.InputError, match="data must have at least 2 examples"
    ):
        measure(folder, model, base, base_data=batches(folder, "base", 1), limit=1)
    wrong = {n: x[..., :1] for n, x in base.state_dict().items()}
    with pytest.raises(merganser.InputError, match="base: tensor .* in model"):
        measure(folder, model, wrong)
    done = fisher(folder, tmp_path / "f.safetensors", "--limit", "1", check=False)
    assert done.returncode == 2
    assert "expected at least 3 examples, one for each class" in done.stderr
    assert not (tmp_path / "f.safetensors").exists()
    done = run(
        *("fisher", "--model", folder / "expert", "--data", folder / "expert.jsonl"),
        *("--base", folder / "base", "--out", tmp_path / "f.safetensors"),
        check=False,
    )
    assert done.returncode == 2
    assert "expected --base and --base-data together" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("key", ["slope", "groups"])
def test_the_statistics_belong_to_the_merge(folder, tmp_path, key):
    """verify sees a change of the metadata alone."""
    for name in ("base", "expert"):
        shutil.copytree(folder / name, tmp_path / name)
    own, of_base = tmp_path / "expert.safetensors", tmp_path / "base.safetensors"
    shutil.copy(folder / "expert.safetensors", own)
    run(
        *("fisher", "--model", folder / "base", "--data", folder / "base.jsonl"),
        *("--out", of_base, "--max-length", "24", "-q"),
    )
    recipe = {
        "merge_method": "measured_gradient_matching",
        "base_model": "base",
        "base_fisher": "base.safetensors",
        "models": [{"model": "expert", "fisher": "expert.safetensors"}],
    }
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe))
    run("merge", tmp_path / "recipe.yaml", tmp_path / "out", "-q")
    assert run("verify", tmp_path / "out").returncode == 0
    with safe_open(own, "pt") as file:
        metadata = file.metadata()
    along = json.loads(metadata["task_vector"])
    along[key] = {} if key == "groups" else 2 * along[key]
    tensors = safetensors.torch.load_file(own)
    metadata["task_vector"] = json.dumps(along)
    safetensors.torch.save_file(tensors, own, metadata)
    done = run("verify", tmp_path / "out", check=False)
    assert done.returncode == 1 and "expert.safetensors" in done.stdout + done.stderr
    done = run(
        "merge", tmp_path / "recipe.yaml", tmp_path / "out", "--resume", check=False
    )
    assert done.returncode == 2
