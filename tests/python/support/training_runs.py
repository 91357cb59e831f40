"""Training runs that are interrupted and resumed."""

from training_inputs import train

# Steps 1 to 12, four per epoch; a checkpoint every three steps.
OPTIONS = {
    "batch_size": 4,
    "accumulate": 2,
    "epochs": 3,
    "lr": 3e-3,
    "dropout": 0.1,
    "checkpoint_steps": 3,
}


def run(folder, out, progress=None, **options):
    options = OPTIONS | {"eval": folder / "dev.jsonl"} | options
    return train(folder, out, progress, **options)
