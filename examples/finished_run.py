"""Models, texts and accuracies of a finished `merganser run`, for the notebooks."""

import json
import random
from pathlib import Path

import merganser
import torch
import transformers
import yaml
from torch.utils.data import DataLoader

HERE = Path(__file__).parent  # of the experiments' files, and of the notebooks
transformers.utils.logging.disable_progress_bar()


class FinishedRun:
    """The directory `name` of out/.

    Attributes:
        out: the directory.
        results: the content of results.json.
        experiment: the experiment's file.
        base: the set that the base was trained on.
        experts: the experts' sets, which are their names.
        sets: all test sets.
    """

    def __init__(self, name="snippets"):
        self.out = HERE.parent / "out" / name
        file = self.out / "results.json"
        if not file.exists():
            run = name.partition("/")[0]  # without the directory of a seed
            raise FileNotFoundError(
                f"out/{name}/results.json does not exist: run scripts/demo, or "
                f"merganser run examples/{run}.yaml out/{run}"
            )
        self.results = json.loads(file.read_text())
        self.experiment = yaml.safe_load(self.results["experiment"])
        self.base = self.experiment["base"]["data"]
        self.experts = list(self.experiment["experts"]["data"])
        self.sets = self.results["sets"]

    def models(self, *kinds):
        """The rows of the table, all or those of some kinds: base, expert, ..."""
        return [m for m in self.results["models"] if not kinds or m["kind"] in kinds]

    def path(self, name):
        return self.out / next(m["path"] for m in self.models() if m["name"] == name)

    def fisher(self, name):
        return self.out / f"fishers/{name}.safetensors"

    def load(self, path):
        """A model, by its name in the run or from a directory."""
        path = path if isinstance(path, Path) else self.path(path)
        return transformers.AutoModelForSequenceClassification.from_pretrained(path)

    def rows(self, data, part="train", limit=None):
        """Examples of a set, or a sample of them, the same one in every call."""
        file = self.out / "data" / data / f"{part}.jsonl"  # a sample that the run drew
        if not file.exists():
            file = HERE / self.experiment["data"][data][part]
        rows = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
        if limit and limit < len(rows):
            rows = random.Random(0).sample(rows, limit)
        return rows

    def loader(self, rows, batch_size=32):
        tokenizer = transformers.AutoTokenizer.from_pretrained(self.path("base"))
        length = self.experiment["max_length"]

        def collate(rows):
            texts = [row["text"] for row in rows]
            inputs = tokenizer(
                texts,
                padding=True,
                truncation=True,
                max_length=length,
                return_tensors="pt",
            )
            return {**inputs, "labels": torch.tensor([row["label"] for row in rows])}

        return DataLoader(rows, batch_size, collate_fn=collate)

    def training(self, data):
        """All training batches of a set, for functions that take a `limit`."""
        return self.loader(self.rows(data))

    @torch.no_grad()
    def predict(self, model, data, limit=None):
        """Log-probabilities and labels on a sample of the test set."""
        # Texts of one length together: less padding.
        rows = sorted(self.rows(data, "test", limit), key=lambda row: len(row["text"]))
        half = self.experiment.get("dtype") == "bfloat16"
        found, labels = [], []
        for batch in self.loader(rows, 64):
            labels.append(batch.pop("labels"))
            with torch.autocast("cpu", torch.bfloat16, enabled=half):
                logits = model.eval()(**batch).logits
            found.append(logits.double().log_softmax(-1))
        return torch.cat(found), torch.cat(labels)

    def evaluate(self, model, limit=None):
        """Accuracy and loss per test set, and their means under "average"."""
        scores = {}
        for data in self.sets:
            found, labels = self.predict(model, data, limit)
            scores[data] = {
                "accuracy": (found.argmax(-1) == labels).double().mean().item(),
                "loss": -found.gather(1, labels[:, None]).mean().item(),
            }
        scores["average"] = {
            key: sum(s[key] for s in scores.values()) / len(self.sets)
            for key in ("accuracy", "loss")
        }
        return scores

    def merge(self, method, weights=1.0, experts=None, **options):
        """A module with a merge of the run's experts, with its Fishers."""
        experts = experts or self.experts
        module = self.load("base")
        merged = merganser.merge(
            module,
            [self.load(name) for name in experts],
            [self.fisher(name) for name in experts],
            method,
            weights,
            base_fisher=self.fisher("base"),
            **options,
        )
        module.load_state_dict(merged)
        return module
