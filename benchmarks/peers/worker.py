"""A process with one contestant in it: lines of JSON in, lines of JSON out.

    {"cell": {...}}      makes the model and the examples   -> {"ready": ...}
    {"run": 3}           the next three batches             -> {"seconds": ...}
    {"end": PATH}        writes the Fisher, PATH or null    -> {"peak": ...}

A contestant is a function that goes through batches (contestants.py). The batches
that it is given wait for orders: a run starts when its first batch is handed out
and ends when the contestant comes back for more, so that every contestant is timed
in the same way, whoever owns the loop. What fails is answered {"error": ...}.
"""

import gc
import json
import os
import resource
import sys
import time
from contextlib import nullcontext

import torch
import transformers
from contestants import CONTESTANTS
from safetensors.torch import save_file

MODELS = {
    "minilm": lambda: transformers.BertForSequenceClassification(
        transformers.BertConfig(
            num_hidden_layers=6,
            hidden_size=384,
            intermediate_size=1536,
            **NO_DROPOUT,
        )
    ),
    "roberta-base": lambda: transformers.RobertaForSequenceClassification(
        transformers.RobertaConfig(
            vocab_size=50265,
            max_position_embeddings=514,
            type_vocab_size=1,
            layer_norm_eps=1e-5,
            **NO_DROPOUT,
        )
    ),
}
# Opacus only works in training mode; without dropout the modes are the same.
NO_DROPOUT = {
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "num_labels": 2,
}
EXAMPLES = 32


def make_batches(cell, vocabulary):
    """EXAMPLES random examples in batches, padded to the longest of a batch.

    The same examples whatever the batch size; of lengths from length / 8 to length
    if they are mixed.
    """
    generator = torch.Generator().manual_seed(1)
    shape = (EXAMPLES, cell["length"])
    ids = torch.randint(5, vocabulary, shape, generator=generator)
    labels = torch.randint(0, 2, (EXAMPLES,), generator=generator)
    lengths = torch.full((EXAMPLES,), cell["length"])
    if cell["mixed"]:
        least = cell["length"] // 8
        lengths = torch.randint(
            least, cell["length"] + 1, (EXAMPLES,), generator=generator
        )
    mask = (torch.arange(cell["length"]) < lengths[:, None]).long()
    ids = torch.where(mask == 1, ids, 1)
    batches = []
    for rows in torch.arange(EXAMPLES).split(cell["batch_size"]):
        width = int(lengths[rows].max())
        batches.append(
            {
                "input_ids": ids[rows, :width],
                "attention_mask": mask[rows, :width],
                "labels": labels[rows],
            }
        )
    return batches


class Orders:
    """The other side of the pipe."""

    def __init__(self):
        # Whatever a library prints goes to stderr.
        self._answers = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)

    def next(self):
        line = sys.stdin.readline()
        if not line:
            sys.exit()
        return json.loads(line)

    def answer(self, **what):
        print(json.dumps(what), file=self._answers, flush=True)


def feed(batches, orders, cell):
    """Hands out batches as it is ordered to, until "end"."""
    orders.answer(ready=True)
    while "run" in (order := orders.next()):
        start = time.perf_counter()
        for i in range(order["run"]):
            yield batches[i % len(batches)]
        orders.answer(seconds=time.perf_counter() - start)
    cell["save"] = order["end"]


def autocast(cell):
    if cell["dtype"] == "bfloat16":
        return lambda: torch.autocast("cpu", torch.bfloat16)
    return nullcontext


def memory(field):
    """VmRSS or VmHWM, the highest VmRSS, in bytes."""
    with open("/proc/self/status") as status:
        line = next(line for line in status if line.startswith(field))
    return int(line.split()[1]) * 1024


def contest(name, cell, orders):
    torch.manual_seed(0)
    model = MODELS[cell["model"]]().eval()
    batches = make_batches(cell, model.config.vocab_size)
    with torch.no_grad():  # so that the libraries' own set-up counts for nobody
        model(input_ids=batches[0]["input_ids"][:1, :8])
    with open("/proc/self/clear_refs", "w") as clear:
        clear.write("5")  # VmHWM starts again from VmRSS
    before = memory("VmRSS")
    fisher = CONTESTANTS[name](model, feed(batches, orders, cell), autocast(cell))
    peak = memory("VmHWM") - before
    if cell["save"]:
        save_file({name: f.clone() for name, f in fisher.items()}, cell["save"])
    values = sum(f.numel() for f in fisher.values())
    orders.answer(peak=peak, values=values)


def main():
    name, threads, memory_limit = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    torch.set_num_threads(threads)
    # An allocation that does not fit fails instead of ending other processes.
    resource.setrlimit(resource.RLIMIT_DATA, (memory_limit, memory_limit))
    orders = Orders()
    while True:
        cell = orders.next()["cell"]
        try:
            contest(name, cell, orders)
        except Exception as error:
            orders.answer(error=f"{type(error).__name__}: {error}".split("\n")[0])
        gc.collect()  # models with hooks are cycles


main()
