"""merganser calibrate against the definition in float64, and bad input."""

import json

import merganser
import pytest
import safetensors.torch
import torch
import training_inputs
from command import run
from safetensors import safe_open
from transformers import (
    AutoTokenizer,
    BertForSequenceClassification,
    DataCollatorWithPadding,
)

COUNT = 60


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An expert that fits its data, a merge, data, and the expert's Fisher."""
    folder = tmp_path_factory.mktemp("calibrate")
    training_inputs.make_seeded_bert(folder / "model", 5)
    training_inputs.make_data(folder / "train.jsonl", COUNT, 0)
    _, out = training_inputs.train(folder, lr=1e-2, epochs=6)
    out.rename(folder / "expert")
    training_inputs.move(folder / "expert", folder / "merge", 0.3, 5)
    fisher(folder, folder / "fisher.safetensors")
    return folder


def fisher(folder, out, *more, model="expert"):
    run(
        *("fisher", "--model", folder / model, "--data", folder / "train.jsonl"),
        *("--out", out, "--max-length", "24", "-q", *more),
    )


def calibrate(folder, out, check=True, **options):
    options = {
        "fisher": folder / "fisher.safetensors",
        "model": folder / "expert",
        "merge": folder / "merge",
        "data": folder / "train.jsonl",
        "max-length": 24,
        "batch-size": 7,
    } | options
    arguments = [x for key, value in options.items() for x in (f"--{key}", value)]
    return run("calibrate", "--out", out, "--json", *arguments, check=check)


def define(folder, fisher):
    """The scale and its standard error."""
    tokenizer = AutoTokenizer.from_pretrained(folder / "expert")
    lines = (folder / "train.jsonl").read_text().splitlines()
    examples = [json.loads(line) for line in lines]

    def load(name):
        found = BertForSequenceClassification.from_pretrained(folder / name)
        return found.double().eval()

    model, begin, end = load("expert"), load("expert"), load("merge")
    begin, end = dict(begin.named_parameters()), dict(end.named_parameters())

    @torch.no_grad()
    def losses(share):
        for name, x in model.named_parameters():
            x.copy_(torch.lerp(begin[name], end[name], share))
        return torch.stack(
            [
                -model(**tokenizer(e["text"], return_tensors="pt"))
                .logits[0]
                .log_softmax(0)[e["label"]]
                for e in examples
            ]
        )

    curvature = 4 * (losses(0.0) - 2 * losses(0.5) + losses(1.0))
    quadratic = sum(
        (f.double() * (end[name] - begin[name]) ** 2).sum()
        for name, f in fisher.diagonal.items()
    )
    error = curvature.std() / len(examples) ** 0.5
    return [(x / quadratic).item() for x in (curvature.mean(), error)]


def metadata_of(file):
    with safe_open(file, "pt") as opened:
        return opened.metadata()


@pytest.mark.slow
def test_is_the_definition(folder, tmp_path):
    out = tmp_path / "out.safetensors"
    shown = json.loads(calibrate(folder, out).stdout)
    before = merganser.FisherResult.load(folder / "fisher.safetensors")
    found = merganser.FisherResult.load(out)
    assert found.scale is not None
    value, error = define(folder, before)
    assert found.scale.scale.value == pytest.approx(value, rel=1e-4)
    assert found.scale.scale.standard_error == pytest.approx(error, rel=1e-4)
    assert (shown["scale"], shown["standard_error"]) == (
        found.scale.scale.value,
        found.scale.scale.standard_error,
    )
    assert shown["num_examples_used"] == found.scale.num_examples_used == COUNT
    assert (
        found.scale.merge_hash == (merganser.inspect(folder / "merge")["content_hash"])
    )
    # All else is copied.
    for name, f in before.diagonal.items():
        assert torch.equal(f, found.diagonal[name])
    metadata = metadata_of(out)
    del metadata["scale"]
    assert metadata == metadata_of(folder / "fisher.safetensors")
    # Kept by files that Python writes.
    found.save(tmp_path / "copy.safetensors")
    copy = merganser.FisherResult.load(tmp_path / "copy.safetensors")
    assert copy.scale is not None
    assert copy.scale.scale.value == found.scale.scale.value


@pytest.mark.slow
def test_python_finds_the_same(folder, tmp_path):
    shown = json.loads(calibrate(folder, tmp_path / "out.safetensors").stdout)
    load = BertForSequenceClassification.from_pretrained
    tokenizer = AutoTokenizer.from_pretrained(folder / "expert")
    lines = (folder / "train.jsonl").read_text().splitlines()
    examples = [
        {"labels": e["label"], **tokenizer(e["text"])} for e in map(json.loads, lines)
    ]
    found = merganser.calibrate(
        folder / "fisher.safetensors",
        load(folder / "expert"),
        folder / "merge",
        examples,
        collator=DataCollatorWithPadding(tokenizer),
    )
    assert found.scale.scale.value == pytest.approx(shown["scale"], rel=1e-4)
    assert (
        found.scale.merge_hash == (merganser.inspect(folder / "merge")["content_hash"])
    )


@pytest.mark.slow
def test_a_loss_that_is_not_finite(folder, tmp_path):
    huge = tmp_path / "huge"
    training_inputs.move(folder / "expert", huge, 0.1, 8)
    weights = safetensors.torch.load_file(huge / "model.safetensors")
    weights["classifier.weight"] = torch.full_like(weights["classifier.weight"], 3e38)
    safetensors.torch.save_file(weights, huge / "model.safetensors", {"format": "pt"})
    out = tmp_path / "out.safetensors"
    done = calibrate(folder, out, check=False, merge=huge)
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert "is not finite" in done.stderr
    assert not out.exists()


@pytest.mark.slow
def test_is_the_factor_by_which_a_fisher_is_off(folder, tmp_path):
    """F and F / 8 get scales with the ratio 8, whatever number they had before."""
    out = tmp_path / "one.safetensors"
    one = json.loads(calibrate(folder, out).stdout)
    f = merganser.FisherResult.load(out)
    f.diagonal = {name: x / 8 for name, x in f.diagonal.items()}
    f.save(tmp_path / "eighth.safetensors")
    eighth = json.loads(
        calibrate(folder, out, fisher=tmp_path / "eighth.safetensors").stdout
    )
    for key in ("scale", "standard_error"):
        assert eighth[key] == pytest.approx(8 * one[key], rel=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("storage", ["bfloat16", "factored"])
def test_copies_compact_fishers(folder, tmp_path, storage):
    file = tmp_path / "f.safetensors"
    fisher(folder, file, "--storage", storage)
    before = safetensors.torch.load_file(file)
    calibrate(folder, file, fisher=file)  # in place
    after = safetensors.torch.load_file(file)
    assert before.keys() == after.keys()
    for name, x in before.items():
        assert torch.equal(x, after[name])
    assert metadata_of(file)["storage"] == storage
    assert "scale" in metadata_of(file)


@pytest.mark.slow
def test_bad_input(folder, tmp_path):
    training_inputs.move(folder / "expert", folder / "other", 0.1, 6)
    fisher(folder, folder / "other.safetensors", model="other")
    zeros = merganser.FisherResult.load(folder / "fisher.safetensors")
    zeros.diagonal = {name: 0 * x for name, x in zeros.diagonal.items()}
    zeros.save(folder / "zeros.safetensors")
    (folder / "unlabelled.jsonl").write_text('{"text": "w1"}\n' * 5)
    training_inputs.make_bert(folder / "small")
    small = BertForSequenceClassification.from_pretrained(
        folder / "small", num_labels=2, ignore_mismatched_sizes=True
    )
    small.save_pretrained(folder / "small")
    # Away from the expert the loss is concave along the path back to it.
    training_inputs.move(folder / "expert", folder / "far", 3.0, 7)
    fisher(folder, folder / "far.safetensors", model="far")
    out = tmp_path / "out.safetensors"
    for options, words in (
        ({"fisher": folder / "other.safetensors"}, "belongs to a different model"),
        ({"merge": folder / "expert"}, "has the weights of"),
        ({"merge": folder / "small"}, "has shape [2"),
        ({"data": folder / "unlabelled.jsonl"}, "label"),
        ({"fisher": folder / "zeros.safetensors"}, "the Fisher is 0 along the path"),
        (
            {
                "fisher": folder / "far.safetensors",
                "model": folder / "far",
                "merge": folder / "expert",
            },
            "expected a loss of positive curvature",
        ),
        ({"fisher": folder / "expert" / "model.safetensors"}, "not a Fisher file"),
    ):
        done = calibrate(folder, out, check=False, **options)
        assert done.returncode == 2, words
        assert words in done.stderr
        assert done.stderr.count("\n") == 1
        assert not out.exists()
