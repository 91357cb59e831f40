"""Averages of a module's predictions over parameters."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.func import functional_call

from .._C import InputError
from .._common.wrappers import check_whole, parameters_inside
from .._fisher.batches import Batch
from .._fisher.data import Data
from .._fisher.model_state import device_of, eval_mode
from .._losses.choice import find_loss, guess_loss
from .._losses.loss import Loss
from .._merge.states import State, check_extra, check_shape, memory_of, some


def check_model(model: nn.Module, mean: State) -> None:
    """Checks that a module has the tensors of a state dict, and no other parameter."""
    check_whole(model)
    parameters = dict(parameters_inside(model, remove_duplicate=False))
    names = parameters.keys() | dict(model.named_buffers()).keys()
    check_extra(mean, names, "the posterior", "the model")
    known = {memory_of(p) for n, p in parameters.items() if n in mean}
    missing = [n for n, p in parameters.items() if memory_of(p) not in known]
    if missing:
        raise InputError(f"the posterior lacks tensors of the model: {some(missing)}")
    for name in mean.keys() & parameters.keys():
        shape = mean[name].shape
        check_shape(parameters[name], shape, "the model", name, "the posterior")


def average_predictions(
    model: nn.Module, states: Iterable[State], data: Iterable, loss: str
) -> Tensor:
    """The mean over states of probabilities, or of means of real values, (N, ...)."""
    device = device_of(model)
    batches = _read(data, model, device)
    found = find_loss(loss, model)
    sums: list[Tensor] = []
    count = 0
    with torch.no_grad(), eval_mode(model):
        for state in states:
            count += 1
            state = {name: x.to(device) for name, x in state.items()}
            for i, batch in enumerate(batches):
                raw = functional_call(model, state, batch.args, batch.kwargs)
                found = found or guess_loss(raw, batch)
                p = _probabilities(found, raw, batch)
                if i < len(sums):
                    sums[i] += p
                else:
                    sums.append(p)
    if len({p.shape[1:] for p in sums}) > 1:
        raise InputError(
            "the batches have outputs of different shapes: pad all to one length"
        )
    return torch.cat(sums).div_(count)


def _read(data: Iterable, model: nn.Module, device: torch.device) -> list[Batch]:
    """All batches, so that every pass has the same, even from a shuffling loader."""
    batches = Data(
        data,
        model,
        collator=None,
        batch_size=1,
        limit=None,
        seed=0,
        num_examples=None,
    )
    return list(batches.read(device, None))


def _probabilities(loss: Loss, raw, batch: Batch) -> Tensor:
    return loss.probabilities(loss.outputs(raw, batch))
