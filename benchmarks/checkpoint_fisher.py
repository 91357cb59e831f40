r"""Fishers from checkpoints of transformers' Trainer, compared with those estimated on
the same texts.

    PYTHONPATH=build/cpu/python python benchmarks/checkpoint_fisher.py

Needs what scripts/demo leaves behind. Trains the demo's base on tweets for an epoch,
for several numbers of examples per step, without clipping and with it, and reads the
Fisher from the checkpoint's optimizer.pt. "sum" is the ratio of the sums over all
parameters to those of merganser.fisher at the trained model, "uncorrected" the same for
Adam's v itself. The merge is fisher_base of the base and the trained model, evaluated
on both test sets: means of accuracies and losses. Prints a Markdown table, and keeps
every configuration's rows under out/checkpoint_fisher, so that it can be stopped.

    PYTHONPATH=build/cpu/python python benchmarks/checkpoint_fisher.py \
        --pretrained data/smollm2-135m-instruct --examples 512 --limit 200

does the same for another pre-trained model, whose base is trained on as many movie
reviews first.
"""

import argparse
import json
import tempfile
from pathlib import Path

import merganser
import torch
from torch.nn import functional
from torch.utils.data import DataLoader
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
)

BATCHES, CLIPS = (8, 32, 128), (0.0, 1.0)


class Texts:
    """The demo's texts as examples of a Trainer."""

    def __init__(self, base, data):
        self.data = data
        self.tokenizer = AutoTokenizer.from_pretrained(base)
        self.tokenizer.padding_side = "right"
        self.collate = DataCollatorWithPadding(self.tokenizer)

    def read(self, name, part, limit):
        path = self.data / "snippets" / name / f"{part}.jsonl"
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        order = torch.randperm(
            len(rows), generator=torch.Generator().manual_seed(1)
        ).tolist()
        return [
            {
                "labels": int(rows[i]["label"]),
                **self.tokenizer(rows[i]["text"], truncation=True, max_length=64),
            }
            for i in order[:limit]
        ]


def load(folder, tokenizer):
    """A classifier with two labels; decoders find a text's end by the padding."""
    model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=2)
    model.config.pad_token_id = tokenizer.pad_token_id
    return model.float()


def train(model, examples, collate, folder, batch=32, clip=1.0):
    """Trains for an epoch and returns the checkpoint."""
    arguments = TrainingArguments(
        str(folder),
        num_train_epochs=1,
        per_device_train_batch_size=batch,
        learning_rate=3e-5,
        max_grad_norm=clip,
        logging_steps=1,
        save_strategy="epoch",
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
        seed=1,
    )
    Trainer(model, arguments, train_dataset=examples, data_collator=collate).train()
    (checkpoint,) = folder.glob("checkpoint-*")
    model.eval()
    return checkpoint


@torch.no_grad()
def evaluate(model, sets, collate):
    """Mean accuracy and loss over the sets."""
    accuracies, losses = [], []
    for examples in sets:
        logits, labels = [], []
        for batch in DataLoader(examples, 64, collate_fn=collate):
            labels.append(batch.pop("labels"))
            logits.append(model(**batch).logits)
        logits, labels = torch.cat(logits), torch.cat(labels)
        accuracies.append(float((logits.argmax(1) == labels).double().mean()))
        losses.append(float(functional.cross_entropy(logits, labels)))
    return 100 * sum(accuracies) / len(sets), sum(losses) / len(sets)


def total(fisher):
    return sum(float(f.double().sum()) for f in fisher.values())


def uncorrected(checkpoint):
    """The sum of Adam's v."""
    state = torch.load(checkpoint / "optimizer.pt", weights_only=True)["state"]
    return sum(float(s["exp_avg_sq"].double().sum()) for s in state.values())


class Comparison:
    """The base, its Fisher and the data; a configuration's rows of the table."""

    def __init__(self, arguments):
        self.limit = arguments.limit
        self.base = arguments.out / "models" / "base"
        self.texts = Texts(arguments.pretrained or self.base, arguments.data)
        if arguments.pretrained:
            self.base = arguments.results / "base"
            self._make_base(arguments)
            fisher = self.base / "fisher.safetensors"
        else:
            fisher = arguments.out / "fishers" / "base.safetensors"
        self.base_fisher = merganser.FisherResult.load(fisher)
        self.examples = self.texts.read("tweets", "train", arguments.examples)
        self.tests = [
            self.texts.read(name, "test", arguments.test)
            for name in ("movie", "tweets")
        ]

    def model(self):
        return load(self.base, self.texts.tokenizer)

    def _make_base(self, arguments):
        if (self.base / "fisher.safetensors").exists():
            return
        examples = self.texts.read("movie", "train", arguments.examples)
        torch.manual_seed(1)  # of the new head
        model = load(arguments.pretrained, self.texts.tokenizer)
        with tempfile.TemporaryDirectory() as name:
            train(model, examples, self.texts.collate, Path(name), 16)
        model.save_pretrained(self.base)
        fisher = self.fisher(model, examples, "exact")
        fisher.save(self.base / "fisher.safetensors")

    def fisher(self, model, examples, estimator):
        collate = self.texts.collate
        return merganser.fisher(
            model, examples, estimator, collator=collate, limit=self.limit
        )

    def merged(self, model, fisher):
        result = self.model()
        state = merganser.merge(
            result, [model], [fisher], "fisher_base", base_fisher=self.base_fisher
        )
        result.load_state_dict(state)
        accuracy, loss = evaluate(result.eval(), self.tests, self.texts.collate)
        return f"{accuracy:.1f} | {loss:.3f} |"

    def rows(self, batch, clip):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            model = self.model()
            checkpoint = train(
                model, self.examples, self.texts.collate, folder, batch, clip
            )
            plain = uncorrected(checkpoint)
            out = folder / "fisher.safetensors"
            fisher = merganser.fisher_from_checkpoint(
                checkpoint, out, num_examples=len(self.examples), max_grad_norm=clip
            )
            metadata = merganser.inspect(out, hashes=False)["metadata"]
        share = json.loads(metadata["optimizer_state"])["mean_gradient_share"]
        result = self.merged(model, fisher)
        rows = []
        for estimator in ("empirical", "exact"):
            reference = self.fisher(model, self.examples, estimator)
            closeness = merganser.compare_fishers(fisher, reference).total
            start = f"| {batch} | {clip:g} |"
            rows.append(
                f"{start} checkpoint | `{estimator}` | "
                f"{total(fisher) / total(reference):.2f} | "
                f"{plain / total(reference):.4f} | {closeness.cosine:.2f} | "
                f"{closeness.rank_correlation:.2f} | {share:.2f} | {result}"
            )
            rows.append(
                f"{start} `{estimator}` | | | | | | | {self.merged(model, reference)}"
            )
        return rows


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--out", type=Path, default=Path("out/snippets"))
    parser.add_argument("--pretrained", type=Path, help="instead of the demo's base")
    parser.add_argument("--examples", type=int, default=2983, help="to train on")
    parser.add_argument("--limit", type=int, default=600, help="of the Fishers")
    parser.add_argument("--test", type=int, default=765, help="of each test set")
    parser.add_argument("--results", type=Path, default=Path("out/checkpoint_fisher"))
    arguments = parser.parse_args()
    name = arguments.pretrained.name if arguments.pretrained else "demo"
    arguments.results /= f"{name}-{arguments.examples}"
    comparison = Comparison(arguments)
    print(
        "| batch | clip | Fisher | compared with | sum | uncorrected | cosine | rank | "
        "share of the mean | accuracy, % | loss |"
    )
    print("|--:|--:|---|---|--:|--:|--:|--:|--:|--:|--:|", flush=True)
    arguments.results.mkdir(parents=True, exist_ok=True)
    for batch in BATCHES:
        for clip in CLIPS:
            kept = arguments.results / f"{batch}-{clip:g}.md"
            if not kept.exists():
                kept.write_text("\n".join(comparison.rows(batch, clip)))
            print(kept.read_text(), flush=True)


if __name__ == "__main__":
    main()
