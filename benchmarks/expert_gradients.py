"""measured_gradient_matching with the experts' full gradients in place of rho.

    PYTHONPATH=build/cpu/python python benchmarks/expert_gradients.py out/snippets \\
        data/snippets

RUN is the output of a finished `merganser run` with exact Fishers. Computes for each
expert the mean gradient g of the labels' negative log-likelihood over each number of
training texts in LIMIT (0: all), merges by

    theta_0 + [sum_t H_t tau_t - N_t g_t] / (H_0 + sum_t H_t + damping * mean H_0)

in float64 and evaluates on DATA/SET/test.jsonl, which is only measured. Also prints
each gradient's norm, its sampling error (the norm of sqrt(variance / n)) and its cosine
with -H_0 tau, which rho stands for. Keeps everything under KEEP. Prints Markdown.
"""

import argparse
import json
import random
import shutil
import statistics
import subprocess
from pathlib import Path

import merganser
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer

EXECUTABLE = Path(merganser.__file__).parents[2] / "bin" / "merganser"
DAMPING = (0, 1e-3, 1, 1e3)  # in means of H_0
BATCH = 16


class Run:
    def __init__(self, options):
        self.options = options
        results = json.loads((options.run / "results.json").read_text())
        self.sets = results["sets"]
        self.experts = [m["name"] for m in results["models"] if m["kind"] == "expert"]
        self.base = load(self.model("base"))
        self.h0 = self.precision("base")

    def model(self, name):
        return self.options.run / "models" / name

    def task_vector(self, name):
        found = load(self.model(name))
        return {key: x - self.base[key] for key, x in found.items()}

    def precision(self, name):
        """H = N F."""
        file = self.options.run / "fishers" / f"{name}.safetensors"
        fisher = merganser.FisherResult.load(file)
        return {key: fisher.num_examples * f.double() for key, f in fisher.items()}

    def gradient(self, name, limit):
        """Sums over n of the expert's texts of gradients, and of batches' squared
        gradients; n, and the number of all texts."""
        texts = self.options.data / name / "train.jsonl"
        examples = [json.loads(line) for line in texts.open(encoding="utf-8")]
        count = len(examples)
        if limit:
            examples = random.Random(0).sample(examples, limit)
        file = self.options.keep / f"{name}-{len(examples)}.pt"
        if not file.exists():
            examples.sort(key=lambda e: len(e["text"]))
            file.parent.mkdir(parents=True, exist_ok=True)
            torch.save(self.sums(self.model(name), examples), file)
        return torch.load(file) | {"of": count, "n": len(examples)}

    def sums(self, folder, examples):
        tokenizer = AutoTokenizer.from_pretrained(folder)
        model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
        parameters = dict(model.named_parameters())
        gradient = {key: torch.zeros_like(x) for key, x in parameters.items()}
        squares = {key: torch.zeros_like(x) for key, x in parameters.items()}
        for begin in range(0, len(examples), BATCH):
            batch = examples[begin : begin + BATCH]
            inputs = tokenizer(
                [e["text"] for e in batch],
                padding=True,
                truncation=True,
                max_length=self.options.max_length,
                return_tensors="pt",
            )
            labels = torch.tensor([e["label"] for e in batch])
            logits = model(**inputs).logits
            loss = torch.nn.functional.cross_entropy(logits, labels, reduction="sum")
            found = torch.autograd.grad(loss, list(parameters.values()))
            for key, g in zip(parameters, found, strict=True):
                gradient[key] += g
                squares[key].addcmul_(g, g)
        return {"gradient": gradient, "squares": squares}

    def describe(self, name, limit):
        """Norm of N g, that of its sampling error, cosine of g with -H_0 tau."""
        found = self.gradient(name, limit)
        scale = found["of"] / found["n"]
        norm = error = inner = along = 0.0
        tau = self.task_vector(name)
        for key, g in found["gradient"].items():
            wide = g.double() * scale
            assumed = -self.h0[key] * tau[key]
            norm += wide.square().sum().item()
            inner += (wide * assumed).sum().item()
            along += assumed.square().sum().item()
            # The variance of a sum of independent batches, about its mean.
            variance = found["squares"][key].double() - g.double() ** 2 * (
                BATCH / found["n"]
            )
            error += scale**2 * variance.sum().item()
        return norm**0.5, error**0.5, inner / (norm * along) ** 0.5

    def merge(self, limit, damping):
        mean = statistics.mean(x.mean().item() for x in self.h0.values())
        above = {key: torch.zeros_like(x) for key, x in self.base.items()}
        below = {key: h + damping * mean + 1e-12 for key, h in self.h0.items()}
        for name in self.experts:
            h, tau = self.precision(name), self.task_vector(name)
            found = self.gradient(name, limit)
            scale = found["of"] / found["n"]
            for key, g in found["gradient"].items():
                above[key] += h[key] * tau[key] - scale * g.double()
                below[key] += h[key]
        return {key: x + above[key] / below[key] for key, x in self.base.items()}

    def evaluate(self, merged):
        folder = self.options.keep / "model"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self.model("base"), folder)
        state = {key: x.float().contiguous() for key, x in merged.items()}
        save_file(state, folder / "model.safetensors", {"format": "pt"})
        tests = [self.options.data / name / "test.jsonl" for name in self.sets]
        command = ["eval", "--model", folder, "--data", *tests, "--json", "-q"]
        command += ["--max-length", self.options.max_length, "--dtype", "bfloat16"]
        found = subprocess.run(
            [str(word) for word in (EXECUTABLE, *command)],
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        )
        return [(e["accuracy"], e["loss"]) for e in json.loads(found.stdout)]


def load(folder):
    return {k: x.double() for k, x in load_file(folder / "model.safetensors").items()}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, metavar="RUN")
    parser.add_argument("data", type=Path, metavar="DATA")
    parser.add_argument("--keep", type=Path, default=Path("out/expert_gradients"))
    parser.add_argument("--limit", type=int, nargs="+", default=[600])
    parser.add_argument("--max-length", type=int, default=64)
    run = Run(parser.parse_args())
    print("| expert | texts | norm of N g | its error | cosine with -H0 tau |")
    print("|---|--:|--:|--:|--:|")
    for name in run.experts:
        for limit in run.options.limit:
            norm, error, cosine = run.describe(name, limit)
            texts = limit or "all"
            row = f"| {name} | {texts} | {norm:,.0f} | {error:,.0f} | {cosine:.4f} |"
            print(row, flush=True)
    sets = " | ".join(run.sets)
    print(f"\n| texts | damping | {sets} | accuracy, % | loss | distance |")
    print(f"|--:|--:|{'--:|' * (len(run.sets) + 3)}")
    for limit in run.options.limit:
        for damping in DAMPING:
            merged = run.merge(limit, damping)
            way = sum((merged[k] - x).square().sum() for k, x in run.base.items())
            found = run.evaluate(merged)
            accuracies = [100 * accuracy for accuracy, _ in found]
            cells = " | ".join(f"{x:.1f}" for x in accuracies)
            loss = statistics.mean(loss for _, loss in found)
            print(
                f"| {limit or 'all'} | {damping:g} | {cells} |"
                f" {statistics.mean(accuracies):.1f} | {loss:.3f} | {way**0.5:.3g} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
