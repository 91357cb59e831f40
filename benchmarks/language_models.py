"""A base, experts and joint models by next-token loss, and their texts."""

import functools
import json
import random
import shutil

import torch
from kept_rows import write
from torch.nn import functional
from torch.nn.utils import clip_grad_norm_
from transformers import AutoModelForCausalLM, AutoTokenizer

TASKS = ("imdb", "yelp", "agnews")
KEPT, REMOVED = "agnews", "toxic"
# the label of a set's texts that are used, where not all are
LABELS = {"toxic": ("toxic", 1), "clean": ("toxic", 0)}
# name of a model: the model that its training starts from, sets that it is trained on
TRAININGS = {
    **{task: ("base", (task,)) for task in TASKS},
    "joint": ("base", TASKS),
    "with toxic": ("base", (KEPT, REMOVED)),
    "toxic": ("with toxic", (REMOVED,)),
}
DTYPE = torch.bfloat16  # of matrix products in all passes
WARM_UP = 10  # steps
CLIP = 1.0  # norm of a step's gradient


class LanguageModels:
    """The models and texts of one run; what exists in `options.work` is kept."""

    def __init__(self, options):
        self.options = options
        self.work = options.work
        self.work.mkdir(parents=True, exist_ok=True)
        self.tokenizer = AutoTokenizer.from_pretrained(options.model)
        # Pretraining separates its texts with this token: it predicts the first one.
        self.start = self.tokenizer.convert_tokens_to_ids("<|endoftext|>")

    def load(self, name):
        """The base, or a model of TRAININGS, which is trained if it does not exist."""
        path = self.options.model if name == "base" else self.train(name)
        # Eager attention is the fastest on these short texts on a CPU.
        model = AutoModelForCausalLM.from_pretrained(path, attn_implementation="eager")
        return model.eval()

    @functools.cache  # noqa: B019 (as long as the run)
    def sequences(self, name, part):
        """Token ids of a random sample of a set's texts."""
        count = getattr(self.options, part)
        if name == "own":
            own = self.own_sequences()
            return own[:count] if part == "test" else own[self.options.test :]
        source, label = LABELS.get(name, (name, None))
        file = self.options.data / source / f"{part}.jsonl"
        lines = file.read_text(encoding="utf-8").rstrip("\n").split("\n")
        rows = [json.loads(line) for line in lines]
        texts = [row["text"] for row in rows if label in (None, row["label"])]
        chosen = random.Random(self.options.seed).sample(texts, min(count, len(texts)))
        encoded = self.tokenizer(chosen, add_special_tokens=False)["input_ids"]
        return [[self.start, *ids][: self.options.max_length] for ids in encoded]

    def own_sequences(self):
        """Texts that the base writes: in place of its training data."""
        file = self.work / "own.json"
        if not file.exists():
            model = self.load("base")
            count = self.options.test + self.options.limit
            torch.manual_seed(self.options.seed)
            with torch.autocast("cpu", DTYPE):
                begin = torch.full((count, 1), self.start)
                rows = model.generate(
                    begin,
                    attention_mask=torch.ones_like(begin),
                    do_sample=True,
                    top_k=0,
                    max_new_tokens=self.options.max_length - 1,
                ).tolist()
            ends = {self.start, self.tokenizer.eos_token_id}
            cut = [
                row[: next((i for i, x in enumerate(row) if i and x in ends), None)]
                for row in rows
            ]
            write(file, json.dumps([row for row in cut if len(row) > 1]) + "\n")
        return json.loads(file.read_text())

    def batches(self, sequences, size, by_length=False):
        if by_length:
            sequences = sorted(sequences, key=len)
        return [
            padded(sequences[begin : begin + size])
            for begin in range(0, len(sequences), size)
        ]

    def train(self, name):
        """The directory of a model of TRAININGS."""
        out = self.work / name.replace(" ", "_")
        if out.exists():
            return out
        start, sets = TRAININGS[name]
        sequences = [ids for x in sets for ids in self.sequences(x, "train")]
        random.Random(self.options.seed).shuffle(sequences)
        batches = self.batches(sequences, self.options.batch_size)
        model = self.load(start)
        fit(model, batches, self.options.lr, name)
        partial = out.with_name(out.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        model.save_pretrained(partial)
        self.tokenizer.save_pretrained(partial)
        partial.rename(out)
        return out

    @torch.no_grad()
    def losses(self, model, name):
        """(loss in nats, number of predicted tokens) of each of a set's test texts."""
        found = []
        batches = self.batches(self.sequences(name, "test"), 16, by_length=True)
        for batch in batches:
            targets = batch.pop("labels")[:, 1:]
            with torch.autocast("cpu", DTYPE):
                logits = model(**batch).logits[:, :-1]
            for row, target in zip(logits, targets, strict=True):
                loss = functional.cross_entropy(row.float(), target, reduction="sum")
                found.append((loss.item(), int((target != -100).sum())))
        return found


def padded(sequences):
    """A batch; labels are the tokens, -100 in the padding."""
    shape = len(sequences), max(map(len, sequences))
    ids, mask = (
        torch.zeros(shape, dtype=torch.long),
        torch.zeros(shape, dtype=torch.long),
    )
    for row, sequence in enumerate(sequences):
        ids[row, : len(sequence)] = torch.tensor(sequence)
        mask[row, : len(sequence)] = 1
    labels = ids.masked_fill(mask == 0, -100)
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def fit(model, batches, lr, name):
    """One epoch of AdamW without weight decay; the learning rate falls as a cosine."""
    parameters = list(model.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=lr, weight_decay=0.0, fused=True)
    warm_up = min(WARM_UP, len(batches) // 2)
    schedule = torch.optim.lr_scheduler.SequentialLR(
        optimizer,
        [
            torch.optim.lr_scheduler.LinearLR(optimizer, 1 / (warm_up + 1), 1, warm_up),
            torch.optim.lr_scheduler.CosineAnnealingLR(
                optimizer, len(batches) - warm_up
            ),
        ],
        [warm_up],
    )
    model.train()
    recent = []
    for step, batch in enumerate(batches, 1):
        with torch.autocast("cpu", DTYPE):
            loss = model(**batch).loss
        loss.backward()
        clip_grad_norm_(parameters, CLIP)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        recent.append(loss.item())
        if step % 16 == 0 or step == len(batches):
            shown = sum(recent) / len(recent)
            print(f"{name}: step {step} of {len(batches)}, {shown:.3f}", flush=True)
            recent = []
    model.eval()
