"""One process of test_linearize_ddp's runs."""

import gc
import sys
from pathlib import Path

import hf_training
import merganser
import torch

RUNS = {
    "plain": {"per_device_train_batch_size": 4},
    "accumulated": {
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 2,
    },
}
MODELS = {
    "bert": (hf_training.bert, hf_training.examples),
    "gpt2": (hf_training.gpt2, hf_training.sentences),
}


def train(folder, name, **options):
    """Three steps on 8 examples each, with a linearized model: its parameters, and
    those of the model that was linearized."""
    make, data = MODELS[name]
    model = make()
    linear = merganser.linearize(model)
    trainer = hf_training.make_trainer(
        folder, linear, data(24), optim="sgd", learning_rate=0.1, **options
    )
    trainer.train()
    start = [p.detach() for p in model.parameters()]
    return [p.detach() for p in linear.parameters()], start, trainer.args.world_size


def main(folder):
    torch.set_num_threads(1)
    gc.freeze()  # Trainer runs the garbage collector at every start
    found = {}
    for name in MODELS:
        for run, options in RUNS.items():
            found[name, run], _, size = train(folder / "out", name, **options)
            assert size == 2
    torch.save(found, folder / f"rank{torch.distributed.get_rank()}.pt")
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
