"""Gram matrices by their definition, and the texts that tests take them of."""

import torch
from torch import nn


def texts(lengths, seed):
    """Random token ids of tiny_models' vocabulary."""
    draw = torch.Generator().manual_seed(seed)
    return [torch.randint(5, 43, (n,), generator=draw) for n in lengths]


def padded(rows):
    """A batch of texts."""
    ids = nn.utils.rnn.pad_sequence(rows, batch_first=True)
    lengths = torch.tensor([len(row) for row in rows])
    mask = torch.arange(ids.shape[1]) < lengths[:, None]
    return {"input_ids": ids, "attention_mask": mask.long()}


def gram_sums(model, singles):
    """Sums of a a^T over the inputs of nn.Linear modules, one example at a time."""
    sums = {}

    def hook(name):
        def add(module, args):
            a = args[0].reshape(-1, args[0].shape[-1])
            sums[name] = sums.get(name, 0) + a.T @ a

        return add

    handles = [
        module.register_forward_pre_hook(hook(f"{name}.weight"))
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
    ]
    with torch.no_grad():
        for single in singles:
            model(**single) if isinstance(single, dict) else model(single)
    for handle in handles:
        handle.remove()
    return sums
