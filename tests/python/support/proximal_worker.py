"""One process of test_proximal_steps' DDP runs."""

import gc
import sys
from pathlib import Path

import torch
from proximal_runs import LR, run

SIZES = {
    "plain": {"per_device_train_batch_size": 4},
    "bf16": {"per_device_train_batch_size": 4, "bf16": True},
    "accumulated": {
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 2,
    },
}


def main(folder):
    torch.set_num_threads(1)
    gc.freeze()  # Trainer runs the garbage collector at every start
    found = {}
    for size, options in SIZES.items():
        for name in ("bert", "gpt2"):
            options = options | {"name": name}
            without, _ = run(
                folder / "out", proximal=False, max_grad_norm=0.0, **options
            )
            found[size, name] = without.steps
            for clip in (0.0, 0.5):
                gradients, _ = run(folder / "out", max_grad_norm=clip, **options)
                found[size, name, clip] = gradients.steps
                decoupled, _ = run(
                    folder / "out", decoupled=True, lr=LR, max_grad_norm=clip, **options
                )
                found["decoupled", size, name, clip] = decoupled.parameters()
    torch.save(found, folder / f"rank{torch.distributed.get_rank()}.pt")
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
