"""Experts on unlike tasks, from one encoder, and what merges need of them."""

import functools
import json
import random

import merganser
import torch
from kept_rows import write
from torch import nn
from torch.nn import functional
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer

TASKS = {"agnews": 4, "toxic": 2, "yelp": 2}  # numbers of labels
TRAINING = {"epochs": 2, "lr": 5e-5, "weight_decay": 0, "dtype": "bfloat16"}
DTYPE = torch.bfloat16  # of matrix products in all passes


class Tasks(nn.Module):
    """An encoder, and heads for several tasks as constants."""

    def __init__(self, encoder, heads):
        super().__init__()
        self.encoder = encoder
        for name, head in heads.items():
            self.register_buffer(f"{name}_weight", head.weight.detach().clone())
            self.register_buffer(f"{name}_bias", head.bias.detach().clone())

    def forward(self, input_ids, attention_mask, task):
        pooled = self.encoder(input_ids, attention_mask).pooler_output
        weight, bias = (self.get_buffer(f"{task}_{x}") for x in ("weight", "bias"))
        return functional.linear(pooled, weight, bias)


class Experts:
    """The base and the experts of one seed, their texts and statistics."""

    def __init__(self, options, seed):
        self.options, self.seed = options, seed
        self.work = options.work / f"seed-{seed}"
        self.work.mkdir(parents=True, exist_ok=True)
        self.tokenizer = AutoTokenizer.from_pretrained(options.encoder)

    def texts(self, task, part):
        """The file of this seed's sample."""
        file = self.work / f"{task}.{part}.jsonl"
        source = self.options.data / task / f"{part}.jsonl"
        if not file.exists():
            lines = source.read_text(encoding="utf-8").rstrip("\n").split("\n")
            count = min(getattr(self.options, part), len(lines))
            chosen = random.Random(self.seed).sample(lines, count)
            write(file, "\n".join(chosen) + "\n")
        return file

    @functools.cache  # noqa: B019 (as long as the run)
    def batches(self, task, part, count=None, size=32, by_length=False):
        lines = self.texts(task, part).read_text(encoding="utf-8").splitlines()[:count]
        examples = [json.loads(line) for line in lines]
        if by_length:
            examples.sort(key=lambda example: len(example["text"]))
        found = []
        for begin in range(0, len(examples), size):
            some = examples[begin : begin + size]
            encoded = self.tokenizer(
                [example["text"] for example in some],
                padding=True,
                truncation=True,
                max_length=self.options.max_length,
                return_tensors="pt",
            )
            labels = torch.tensor([example["label"] for example in some])
            inputs = {key: encoded[key] for key in ("input_ids", "attention_mask")}
            found.append({**inputs, "task": task, "labels": labels})
        return found

    def train(self, task):
        out = self.work / task
        if not out.exists():
            merganser.Trainer(
                self.options.encoder,
                self.texts(task, "train"),
                out,
                max_length=self.options.max_length,
                num_labels=TASKS[task],
                seed=self.seed,
                **TRAINING,
            ).train()
        return AutoModelForSequenceClassification.from_pretrained(out)

    @functools.cached_property
    def models(self):
        """The base and the experts."""
        trained = {task: self.train(task) for task in TASKS}
        heads = {task: model.classifier for task, model in trained.items()}
        encoders = [AutoModel.from_pretrained(self.options.encoder)]
        encoders += [model.base_model for model in trained.values()]
        return [Tasks(encoder, heads).eval() for encoder in encoders]

    @functools.cached_property
    def sample(self):
        """Batches of training texts of each task."""
        limit = self.options.limit
        return [self.batches(task, "train", limit) for task in TASKS]

    @functools.cached_property
    def of_all(self):
        """The base's data: those of every task."""
        return [batch for batches in self.sample for batch in batches]

    @functools.cached_property
    def numbers(self):
        """N of each task."""
        return [
            len(self.texts(task, "train").read_text(encoding="utf-8").splitlines())
            for task in TASKS
        ]

    @functools.cached_property
    def fishers(self):
        base, *experts = self.models
        return [
            merganser.fisher(
                expert,
                batches,
                "exact",
                num_examples=number,
                base=base,
                base_data=self.of_all,
                dtype=DTYPE,
            )
            for expert, batches, number in zip(
                experts, self.sample, self.numbers, strict=True
            )
        ]

    @functools.cached_property
    def base_fisher(self):
        number = sum(self.numbers)
        return merganser.fisher(
            self.models[0], self.of_all, "exact", num_examples=number, dtype=DTYPE
        )

    @functools.cached_property
    def subspace(self):
        base, *experts = self.models
        return merganser.subspace_fisher(
            base,
            experts,
            self.sample,
            self.of_all,
            num_examples=self.numbers,
            base_num_examples=sum(self.numbers),
            dtype=DTYPE,
        )

    @functools.cached_property
    def grams(self):
        return [
            merganser.gram(expert, batches, num_examples=number, dtype=DTYPE)
            for expert, batches, number in zip(
                self.models[1:], self.sample, self.numbers, strict=True
            )
        ]
