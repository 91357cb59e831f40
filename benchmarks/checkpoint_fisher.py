"""Fishers from checkpoints of transformers' Trainer, compared with those estimated on
the same texts.

    PYTHONPATH=build/cpu/python python benchmarks/checkpoint_fisher.py

Needs what scripts/demo leaves behind. Trains the demo's base on tweets for an epoch,
for several numbers of examples per step, without clipping and with it, and reads the
Fisher from the checkpoint's optimizer.pt. "sum" is the ratio of the sums over all
parameters to those of merganser.fisher at the trained model, "uncorrected" the same for
Adam's v itself. The merge is fisher_base of the base and the trained model, evaluated
on both test sets: means of accuracies and losses. Prints a Markdown table.
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


def train(base, examples, texts, batch, clip, folder):
    model = AutoModelForSequenceClassification.from_pretrained(base)
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
    Trainer(
        model, arguments, train_dataset=examples, data_collator=texts.collate
    ).train()
    (checkpoint,) = folder.glob("checkpoint-*")
    return model.eval(), checkpoint


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


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--out", type=Path, default=Path("out/snippets"))
    parser.add_argument("--examples", type=int, default=2983, help="to train on")
    parser.add_argument("--limit", type=int, default=600, help="of the Fishers")
    parser.add_argument("--test", type=int, default=765, help="of each test set")
    arguments = parser.parse_args()
    base = arguments.out / "models" / "base"
    texts = Texts(base, arguments.data)
    examples = texts.read("tweets", "train", arguments.examples)
    tests = [texts.read(name, "test", arguments.test) for name in ("movie", "tweets")]
    base_fisher = merganser.FisherResult.load(
        arguments.out / "fishers" / "base.safetensors"
    )
    model_0 = AutoModelForSequenceClassification.from_pretrained(base)

    def merged(model, fisher):
        state = merganser.merge(
            model_0, [model], [fisher], "fisher_base", base_fisher=base_fisher
        )
        result = AutoModelForSequenceClassification.from_pretrained(base)
        result.load_state_dict(state)
        accuracy, loss = evaluate(result.eval(), tests, texts.collate)
        return f"{accuracy:.1f} | {loss:.3f} |"

    print(
        "| batch | clip | Fisher | compared with | sum | uncorrected | cosine | rank | "
        "share of the mean | accuracy, % | loss |"
    )
    print("|--:|--:|---|---|--:|--:|--:|--:|--:|--:|--:|", flush=True)
    for batch in BATCHES:
        for clip in CLIPS:
            with tempfile.TemporaryDirectory() as name:
                folder = Path(name)
                model, checkpoint = train(base, examples, texts, batch, clip, folder)
                plain = uncorrected(checkpoint)
                out = folder / "fisher.safetensors"
                fisher = merganser.fisher_from_checkpoint(
                    checkpoint, out, num_examples=len(examples), max_grad_norm=clip
                )
                metadata = merganser.inspect(out, hashes=False)["metadata"]
                facts = json.loads(metadata["optimizer_state"])
                result = merged(model, fisher)
                for estimator in ("empirical", "exact"):
                    reference = merganser.fisher(
                        model,
                        examples,
                        estimator,
                        collator=texts.collate,
                        limit=arguments.limit,
                    )
                    closeness = merganser.compare_fishers(fisher, reference).total
                    line = f"| {batch} | {clip:g} |"
                    print(
                        f"{line} checkpoint | `{estimator}` | "
                        f"{total(fisher) / total(reference):.2f} | "
                        f"{plain / total(reference):.4f} | {closeness.cosine:.2f} | "
                        f"{closeness.rank_correlation:.2f} | "
                        f"{facts['mean_gradient_share']:.2f} | {result}"
                    )
                    line += f" `{estimator}` | | | | | | | {merged(model, reference)}"
                    print(line, flush=True)


if __name__ == "__main__":
    main()
