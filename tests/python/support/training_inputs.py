"""Tiny models with tokenizers, and sentences whose labels depend on some words."""

import json
import random
import shutil

import merganser
import safetensors.torch
import tiny_models
import torch
from tokenizers import ByteLevelBPETokenizer
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    RobertaConfig,
    RobertaForSequenceClassification,
)

FILLERS = [f"w{i}" for i in range(30)]
TELLING = [["dull", "grim"], ["plain"], ["fine", "bright"]]  # by label
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def make_bert(folder):
    folder.mkdir(parents=True)
    vocabulary = SPECIAL + FILLERS + sum(TELLING, [])
    model = tiny_models.bert()
    assert len(vocabulary) <= model.config.vocab_size
    model.save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "BertTokenizer", "do_lower_case": True})
    )
    return folder


def make_seeded_bert(folder, seed):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return make_bert(folder)


def make_roberta(folder):
    folder.mkdir(parents=True)
    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train_from_iterator(
        (text for text, _ in sentences(50, seed=9)),
        vocab_size=300,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
    )
    layers = {**tiny_models._layers(), "vocab_size": tokenizer.get_vocab_size()}
    layers["max_position_embeddings"] = 26  # positions begin after the pad id
    model = RobertaForSequenceClassification(RobertaConfig(**layers, num_labels=3))
    tiny_models.with_larger_weights(model).save_pretrained(folder)
    tokenizer.save_model(str(folder))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "RobertaTokenizer"})
    )
    return folder


MODELS = {"bert": make_bert, "roberta": make_roberta}


def sentences(count, seed, labels=3):
    generator = random.Random(seed)
    for _ in range(count):
        label = generator.randrange(labels)
        words = generator.choices(FILLERS, k=generator.randint(1, 9))
        words.insert(generator.randrange(len(words)), generator.choice(TELLING[label]))
        yield " ".join(words), label


def write(path, examples):
    if path.suffix == ".tsv":
        rows = "".join(f"{text}\t{label}\n" for text, label in examples)
        path.write_text("text\tlabel\n" + rows)
        return path
    lines = (json.dumps({"text": text, "label": label}) for text, label in examples)
    path.write_text("".join(line + "\n" for line in lines))
    return path


def make_data(path, count, seed, labels=3):
    return write(path, sentences(count, seed, labels))


def train(folder, out="out", progress=None, **options):
    """Trains `folder/model` on `folder/train.jsonl`, without dropout by default."""
    options = {"max_length": 24, "dropout": 0.0} | options
    options.setdefault("train", folder / "train.jsonl")
    trainer = merganser.Trainer(folder / "model", out=folder / out, **options)
    return trainer.train(progress), folder / out


def read_metrics(out):
    """The lines of steps, and the lines of epochs."""
    rows = [json.loads(line) for line in (out / "metrics.jsonl").open()]
    steps = [row for row in rows if "learning_rate" in row]
    return steps, [row for row in rows if "train_loss" in row]


def make_experts(folder, tasks, base_count):
    """A base, a model with other weights for each of {task: number of examples}, and
    the data of all."""
    make_bert(folder / "base")
    make_data(folder / "base.jsonl", base_count, 9)
    for seed, (name, count) in enumerate(tasks.items()):
        make_data(folder / f"{name}.jsonl", count, seed)
        model = AutoModelForSequenceClassification.from_pretrained(folder / "base")
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for x in model.parameters():
                x += 0.02 * torch.randn(x.shape, generator=generator)
        model.save_pretrained(folder / name)
        AutoTokenizer.from_pretrained(folder / "base").save_pretrained(folder / name)


def move(source, out, size, seed):
    """Copies a model with noise of `size` standard deviations on its tensors."""
    shutil.copytree(source, out)
    file = out / "model.safetensors"
    generator = torch.Generator().manual_seed(seed)
    moved = {
        name: x + size * x.std() * torch.randn(x.shape, generator=generator)
        for name, x in safetensors.torch.load_file(file).items()
    }
    safetensors.torch.save_file(moved, file, {"format": "pt"})
    return out
