"""An experiment that takes seconds: a random BERT of 16 dimensions with a WordPiece
vocabulary of synthetic words, and data whose labels depend on one word each."""

import json
import random

import tiny_models
import torch

FILLERS = [f"w{i}" for i in range(20)]
SETS = {  # words that determine a label, by set
    "movie": ("dull", "fine"),
    "amazon": ("broken", "solid"),
    "nyt": ("grim", "bright"),
}
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]

YAML = """\
encoder: encoder
max_length: 12
seed: 3
data:
  movie: {train: movie-train.jsonl, test: movie-test.jsonl}
  amazon: {train: amazon-train.jsonl, test: amazon-test.jsonl}
  nyt: {train: nyt-train.jsonl, test: nyt-test.jsonl}
training: {batch_size: 8, lr: 0.003}
base: {data: movie, epochs: 3}
experts: {data: [amazon, nyt], epochs: 8}
target: {epochs: 1}
fisher: {limit: 20}
merges:
  - {name: linear, method: linear}
  - {name: task_arithmetic, method: task_arithmetic, weight: 0.5}
  - {name: fisher, method: fisher, weight: {amazon: 1, nyt: 0.5}}
  - {name: fisher_base, method: fisher_base}
  - {name: gradient_matching, method: gradient_matching, parameters: {delta: 1.0e-10}}
output: gradient_matching
"""
MERGES = ["linear", "task_arithmetic", "fisher", "fisher_base", "gradient_matching"]
TRAINED = ["base", "amazon", "nyt", "target"]


def make(folder):
    """Writes the encoder, the data and experiment.yaml; returns the latter's path."""
    words = [word for pair in SETS.values() for word in pair]
    vocabulary = [*SPECIAL, *FILLERS, *words]
    torch.manual_seed(2)
    model = tiny_models.bert(num_labels=2)
    assert len(vocabulary) <= model.config.vocab_size
    model.bert.save_pretrained(folder / "encoder")
    (folder / "encoder" / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
    (folder / "encoder" / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "BertTokenizer", "do_lower_case": True})
    )
    generator = random.Random(5)
    for name, pair in SETS.items():
        for part, count in (("train", 128), ("test", 40)):
            lines = (example(generator, pair) for _ in range(count))
            (folder / f"{name}-{part}.jsonl").write_text("".join(lines))
    path = folder / "experiment.yaml"
    path.write_text(YAML)
    return path


def example(generator, pair):
    label = generator.randrange(2)
    words = generator.sample(FILLERS, generator.randint(1, 6))
    words.insert(generator.randrange(len(words)), pair[label])
    return json.dumps({"text": " ".join(words), "label": label}) + "\n"
