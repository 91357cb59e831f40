"""Fishers at the weights of another model, and along the path there: the executable
against the definition in float64."""

import json

import merganser
import pytest
import torch
import training_inputs
from command import run
from fisher_oracle import assert_fishers_close, define_fisher
from transformers import AutoTokenizer, BertForSequenceClassification

COUNT = 9


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fisher_points")
    training_inputs.make_seeded_bert(folder / "expert", 5)
    training_inputs.move(folder / "expert", folder / "merge", 0.3, 5)
    training_inputs.make_data(folder / "data.jsonl", COUNT, 0)
    return folder


def fisher(folder, out, *more, model="expert", check=True):
    return run(
        *("fisher", "--model", folder / model, "--data", folder / "data.jsonl"),
        *("--out", out, "--max-length", "24", "--batch-size", "4", "-q", *more),
        check=check,
    )


def load(folder, name):
    return BertForSequenceClassification.from_pretrained(folder / name).double()


def define(folder, shares):
    """The mean of the exact Fishers at shares of the path from expert to merge."""
    begin, end = load(folder, "expert"), load(folder, "merge").state_dict()
    tokenizer = AutoTokenizer.from_pretrained(folder / "expert")
    lines = (folder / "data.jsonl").read_text().splitlines()
    texts = [json.loads(line)["text"] for line in lines]
    examples = [dict(tokenizer(text, return_tensors="pt")) for text in texts]
    total = {}
    for share in shares:
        model = load(folder, "expert")
        with torch.no_grad():
            for name, x in model.named_parameters():
                x.copy_(torch.lerp(begin.state_dict()[name], end[name], share))
        for name, f in define_fisher(model, examples, lambda i, p: p).items():
            total[name] = total.get(name, 0) + f / len(shares)
    return total


@pytest.mark.slow
@pytest.mark.parametrize(
    ("along", "shares"), [(None, [1]), (1, [0.5]), (3, [1 / 6, 0.5, 5 / 6])]
)
def test_points(folder, tmp_path, along, shares):
    more = [] if along is None else ["--along", along]
    fisher(folder, tmp_path / "f.safetensors", "--at", folder / "merge", *more)
    found = merganser.FisherResult.load(tmp_path / "f.safetensors")
    assert_fishers_close(found.diagonal, define(folder, shares))
    hash_of = {
        name: merganser.inspect(folder / name)["content_hash"]
        for name in ("expert", "merge")
    }
    # A merge takes it for the expert's.
    assert found.base_model_hash == hash_of["expert"]
    assert found.at is not None
    assert found.at.model_hash == hash_of["merge"]
    assert found.at.along == (along or 0)
    assert (found.num_examples, found.num_examples_used) == (COUNT, COUNT)


@pytest.mark.slow
def test_at_a_model_is_the_fisher_of_that_model(folder, tmp_path):
    fisher(folder, tmp_path / "at.safetensors", "--at", folder / "merge")
    fisher(folder, tmp_path / "own.safetensors", model="merge")
    at, own = [
        merganser.FisherResult.load(tmp_path / f"{name}.safetensors")
        for name in ("at", "own")
    ]
    assert own.at is None
    for name, f in own.diagonal.items():
        assert torch.equal(f, at.diagonal[name])
    # Kept by files that Python writes.
    at.save(tmp_path / "copy.safetensors")
    copy = merganser.FisherResult.load(tmp_path / "copy.safetensors")
    assert copy.at is not None
    assert copy.at.model_hash == own.base_model_hash


@pytest.mark.slow
def test_bad_input(folder, tmp_path):
    import tiny_models

    tiny_models.bert(num_labels=2).save_pretrained(folder / "two")
    for file in ("vocab.txt", "tokenizer_config.json"):
        (folder / "two" / file).write_bytes((folder / "expert" / file).read_bytes())
    out = tmp_path / "f.safetensors"
    for more, words in (
        (["--along", "2"], "--along requires --at"),
        (["--at", folder / "merge", "--along", "0"], "--along must be at least 1"),
        (["--at", folder / "two"], "classifier.weight has shape [2, 16]"),
        (["--at", folder / "absent"], "absent"),
    ):
        done = fisher(folder, out, *more, check=False)
        assert done.returncode == 2
        assert words in done.stderr
        assert not out.exists()
