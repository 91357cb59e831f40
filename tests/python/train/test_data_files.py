"""Data files with label names and with pairs of texts, against transformers."""

import json

import command
import merganser
import pytest
import torch
from fisher_oracle import assert_fishers_close, define_fisher
from merganser._C import Dataset, Encoder, estimate_fisher, evaluate
from safetensors.torch import load_file
from training_inputs import MODELS, make_bert, sentences, train
from transformers import AutoModelForSequenceClassification, AutoTokenizer

PAD = {"bert": 0, "roberta": 1}
MAX_LENGTH = 14  # cuts some of the pairs


def write_lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def pairs(count):
    second = sentences(count, seed=5)
    for (text, label), (pair, _) in zip(sentences(count, seed=4), second, strict=True):
        yield text, pair, label


@pytest.mark.parametrize("name", MODELS)
def test_pairs(name, tmp_path):
    """Loss, Fisher and training see both texts, with transformers' token types."""
    folder = MODELS[name](tmp_path / "model")
    rows = [*pairs(12)]
    keys = ("text", "text_pair", "label")
    file = write_lines(
        tmp_path / "train.jsonl", [dict(zip(keys, row, strict=True)) for row in rows]
    )
    tokenizer = AutoTokenizer.from_pretrained(folder)
    examples = [
        dict(
            tokenizer(a, b, truncation=True, max_length=MAX_LENGTH, return_tensors="pt")
        )
        for a, b, _ in rows
    ]
    labels = [label for _, _, label in rows]
    data = Dataset.load(file, folder, max_length=MAX_LENGTH, num_labels=3)
    assert data.ids == [example["input_ids"][0].tolist() for example in examples]
    assert {len(ids) for ids in data.ids} >= {MAX_LENGTH}
    assert any(data.token_types) == (name == "bert")

    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    encoder = Encoder.load(folder)
    log_p = torch.cat([model(**example).logits.log_softmax(1) for example in examples])
    loss = -log_p[range(len(labels)), labels].mean().item()
    result = evaluate(encoder, data, PAD[name], batch_size=5)
    assert result.loss == pytest.approx(loss, rel=1e-5)
    fisher = estimate_fisher(encoder, data, PAD[name], batch_size=5)
    assert_fishers_close(
        dict(fisher.diagonal), define_fisher(model, examples, lambda i, p: p)
    )
    run, _ = train(tmp_path, max_length=MAX_LENGTH, batch_size=12, lr=0.0)
    assert run["epochs"][0]["train_loss"] == pytest.approx(loss, rel=1e-5)


def test_files_with_and_without_pairs_train_together(tmp_path):
    folder = make_bert(tmp_path / "model")
    single = [{"text": a, "label": y} for a, y in sentences(6, seed=1)]
    double = [{"sentence1": a, "sentence2": b, "label": y} for a, b, y in pairs(6)]
    files = [
        write_lines(tmp_path / "single.jsonl", single),
        write_lines(tmp_path / "double.jsonl", double),
    ]
    losses = [
        evaluate(
            Encoder.load(folder),
            Dataset.load(file, folder, max_length=24, num_labels=3),
            0,
        ).loss
        for file in files
    ]
    for i, order in enumerate((files, files[::-1])):
        run, _ = train(tmp_path, out=f"out{i}", train=order, batch_size=12, lr=0.0)
        assert run["epochs"][0]["train_loss"] == pytest.approx(
            sum(losses) / 2, rel=1e-5
        )


def test_token_types_that_the_model_lacks(tmp_path):
    folder = make_bert(tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"type_vocab_size": 1}))
    file = tmp_path / "pairs.csv"
    file.write_text("text,text_pair,label\nw1,w2,0\n")
    with pytest.raises(merganser.InputError, match="token type 1.*type_vocab_size.* 1"):
        Dataset.load(file, folder, max_length=24, num_labels=3)


@pytest.mark.slow
def test_label_names(tmp_path):
    """Names give the bits that numbers give, and stay in the trained model."""
    folder = make_bert(tmp_path / "model")
    names = ["bad", "so so", "good"]
    config = json.loads((folder / "config.json").read_text()) | {
        "id2label": {str(i): name for i, name in enumerate(names)},
        "label2id": {name: i for i, name in enumerate(names)},
    }
    (folder / "config.json").write_text(json.dumps(config))
    rows = [*sentences(20, seed=2)]
    files = {
        "numbers.jsonl": [{"text": a, "label": y} for a, y in rows],
        "names.jsonl": [{"text": a, "label": names[y]} for a, y in rows],
        "floats.jsonl": [{"text": a, "label": float(y)} for a, y in rows],
    }
    weights = []
    for name, lines in files.items():
        file = write_lines(tmp_path / name, lines)
        _, out = train(tmp_path, out=name.split(".")[0], train=file, num_labels=3)
        weights.append(load_file(out / "model.safetensors"))
        saved = json.loads((out / "config.json").read_text())
        assert saved["label2id"] == config["label2id"]
        command.run("eval", "--model", out, "--data", file, "--max-length", "24")
    for other in weights[1:]:
        assert all(torch.equal(weights[0][n], other[n]) for n in other)


def test_unknown_label_names_are_refused(tmp_path):
    folder = make_bert(tmp_path / "model")
    write_lines(tmp_path / "train.jsonl", [{"text": "w1", "label": "fine"}])
    with pytest.raises(merganser.InputError, match=r"train.jsonl:1: .*'fine'.*LABEL_2"):
        train(tmp_path)
    config = json.loads((folder / "config.json").read_text()) | {"num_labels": 3}
    del config["id2label"], config["label2id"]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(merganser.InputError, match=r"'fine'.*id2label"):
        train(tmp_path)
