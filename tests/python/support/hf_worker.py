"""One process of test_hf_callback's DDP runs."""

import gc
import sys
from pathlib import Path

import pytest
import torch
from hf_training import (
    bert,
    examples,
    gpt2,
    make_trainer,
    sentences,
    token_classification,
)
from merganser import InputError
from merganser.adamw_fisher import AdamWFisher
from merganser.hf import FisherCallback

COMMON = {"per_device_train_batch_size": 4, "max_grad_norm": 1e-3}
ACCUMULATED = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}


def main(folder):
    torch.set_num_threads(1)
    gc.freeze()  # Trainer runs the garbage collector at every start

    def run(name, model, data, callback, optimizer=None, **options):
        trainer = make_trainer(
            folder / name, model, data, [callback], optimizer, **COMMON | options
        )
        trainer.train()
        assert trainer.args.world_size == 2

    run("adam", bert(), examples(24), FisherCallback())
    model = bert()
    optimizer = AdamWFisher(model.parameters(), lr=0.0, weight_decay=0.0)
    run("ours", model, examples(24), FisherCallback(), optimizer)
    run("accumulated", bert(), examples(24), FisherCallback(), **ACCUMULATED)
    run("gpt2", gpt2(), sentences(24), FisherCallback(), **ACCUMULATED)
    for name in ("online_mc", "online_mc_eval"):
        run(name, bert(), examples(24), FisherCallback(name, interval=1))
    model, data = token_classification()
    with pytest.raises(InputError, match="mean over the tokens"):
        run("tokens", model, data, FisherCallback())
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
