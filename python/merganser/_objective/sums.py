"""Sums of losses and gradients over examples, by ordinary backward passes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from .._C import InputError
from .._fisher.batches import Batch
from .._fisher.forward import Forward
from .._fisher.squares import accumulator
from .states import Tensors


def add_gradient(
    sums: Tensors,
    parameters: Mapping[str, Tensor],
    forward: Forward,
    batch: Batch,
    scale: float = 1.0,
) -> float:
    """sums += scale * the gradient of the batch's summed loss; returns that loss."""
    outputs = forward(batch)
    add_backward(
        sums, parameters, outputs, forward.loss.score(outputs, batch), scale=scale
    )
    return float(forward.loss.nll(outputs.detach(), batch).sum())


def add_backward(
    sums: Tensors,
    parameters: Mapping[str, Tensor],
    outputs: Tensor,
    direction: Tensor | None = None,
    scale: float = 1.0,
) -> None:
    """sums += scale * the gradient of direction . outputs, or of a scalar output."""
    if not outputs.requires_grad:
        raise InputError("no trainable parameter of the model reaches its output")
    gradients = torch.autograd.grad(
        outputs, list(parameters.values()), direction, allow_unused=True
    )
    for total, gradient in zip(sums.values(), gradients, strict=True):
        if gradient is not None:
            dense = gradient.to_dense() if gradient.is_sparse else gradient
            total.add_(dense.to(total.dtype), alpha=scale)


def zeros(parameters: Mapping[str, Tensor]) -> Tensors:
    return {name: accumulator(p) for name, p in parameters.items()}


def summed_gradient(
    parameters: Mapping[str, Tensor],
    forward: Forward,
    batches: Iterable[Batch],
    what: str,
) -> Tensors:
    """The gradient of the loss summed over examples; InputError unless finite."""
    sums = zeros(parameters)
    for batch in batches:
        add_gradient(sums, parameters, forward, batch)
    for name, total in sums.items():
        if not bool(total.isfinite().all()):
            raise InputError(f"the gradient of {name} is not finite, for {what}")
    return sums


def summed_loss(forward: Forward, batches: Iterable[Batch]) -> float:
    with torch.no_grad():
        return math.fsum(_loss(forward, batch) for batch in batches)


def _loss(forward: Forward, batch: Batch) -> float:
    outputs = forward(batch)
    return float(forward.loss.nll(outputs, batch).sum())
