"""Losses of real values: independent labels of 0 or 1, and Gaussian means."""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional

from .. import ops
from .._C import InputError
from .._fisher.batches import Batch
from .loss import NO_LABELS, Loss, row_keys, shape_text


class Multilabel(Loss):
    """Independent labels 0 or 1: outputs (B,) or (B, K), a sigmoid each."""

    name = "multilabel"

    def check(self, outputs, batch):
        if outputs.dim() > 2:
            raise InputError(
                "loss='multilabel' takes logits (B,) or (B, K), not "
                f"{shape_text(outputs)}"
            )
        _check_values("multilabel", outputs, batch)

    def probabilities(self, outputs):
        return torch.sigmoid(outputs.to(_wide(outputs)))

    def exact(self, outputs, batch):
        p = torch.sigmoid(outputs.detach().double())
        return columns((p * (1 - p)).sqrt().to(outputs.dtype))

    def sampled(self, outputs, batch, seed, sample):
        p = torch.sigmoid(outputs.detach().double())
        pairs = torch.stack([1 - p, p], -1).reshape(-1, 2)
        keys = row_keys(batch.indices, torch.ones_like(p, dtype=torch.bool))
        labels = ops.sample_labels(pairs, keys, seed, sample).view_as(p)
        return (labels - p).to(outputs.dtype)

    def given(self, outputs, batch):
        labels = _values(outputs, batch)
        if not ((labels == 0) | (labels == 1)).all():
            raise InputError(
                "loss='multilabel' takes labels 0 and 1, not values from "
                f"{labels.min():g} to {labels.max():g}"
            )
        p = torch.sigmoid(outputs.detach().double())
        return (labels - p).to(outputs.dtype)

    def mean(self, outputs, batch):
        return torch.sigmoid(outputs.detach())

    def basis(self, outputs):
        return list(columns(torch.ones_like(outputs, requires_grad=False)))

    def nll(self, outputs, batch):
        losses = functional.binary_cross_entropy_with_logits(
            outputs.double(), _values(outputs, batch), reduction="none"
        )
        return losses.reshape(batch.size, -1).sum(1)

    def terms(self, outputs, batch):
        return float(outputs.numel())


class Regression(Loss):
    """Gaussians of variance 1: outputs (B,) or (B, K), -log p = 1/2 (y - f)^2.

    The score is y - f, with mean 0 and covariance 1. `sampled` draws -1 or 1 instead of
    a normal value: mean and covariance are the same, so the Fisher is unbiased, without
    the noise of the residual's size.
    """

    name = "regression"

    def check(self, outputs, batch):
        if outputs.dim() > 2:
            raise InputError(
                "loss='regression' takes outputs (B,) or (B, K), not "
                f"{shape_text(outputs)}"
            )
        _check_values("regression", outputs, batch)

    def probabilities(self, outputs):
        return outputs.to(_wide(outputs), copy=True)

    def exact(self, outputs, batch):
        return columns(torch.ones_like(outputs, requires_grad=False))

    def sampled(self, outputs, batch, seed, sample):
        rows = outputs.detach().reshape(batch.size, -1)
        keys = row_keys(batch.indices, torch.ones_like(rows, dtype=torch.bool))
        coins = torch.full((len(keys), 2), 0.5, device=outputs.device)
        signs = 2 * ops.sample_labels(coins, keys, seed, sample) - 1
        return signs.view_as(outputs).to(outputs.dtype)

    def given(self, outputs, batch):
        residual = _values(outputs, batch) - outputs.detach().double()
        return residual.to(outputs.dtype)

    def mean(self, outputs, batch):
        return outputs.detach()

    def basis(self, outputs):
        return list(columns(torch.ones_like(outputs, requires_grad=False)))

    def nll(self, outputs, batch):
        residuals = _values(outputs, batch) - outputs.double()
        return 0.5 * residuals.square().reshape(batch.size, -1).sum(1)

    def terms(self, outputs, batch):
        return outputs.numel() / 2  # the usual loss is the mean of (y - f)^2


def _wide(outputs: Tensor) -> torch.dtype:
    return torch.promote_types(outputs.dtype, torch.float32)


def columns(values: Tensor) -> Iterator[Tensor]:
    """Yields, for each output of an example, a direction with only that output."""
    flat = values.reshape(len(values), -1)
    for k in range(flat.shape[1]):
        direction = torch.zeros_like(flat)
        direction[:, k] = flat[:, k]
        yield direction.view_as(values)


def _check_values(name: str, outputs: Tensor, batch: Batch) -> None:
    labels = batch.labels
    if labels is not None and labels.numel() != outputs.numel():
        raise InputError(
            f"loss='{name}' takes labels {shape_text(outputs)}, not "
            f"{shape_text(labels)}"
        )


def _values(outputs: Tensor, batch: Batch) -> Tensor:
    """The labels in float64, in the shape of outputs."""
    if batch.soft is not None:
        return batch.soft.to(outputs.device).double()
    if batch.labels is None:
        raise InputError(NO_LABELS)
    return batch.labels.to(outputs.device).double().view_as(outputs)
