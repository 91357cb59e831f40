"""The losses by name, and which of them a model and its data speak for."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

from . import ops
from ._batches import Batch
from ._C import InputError
from ._classification import Classification
from ._loss import NO_LABELS, Loss, row_keys, shape_text


class Multilabel(Loss):
    """K independent labels of 0 or 1 per example: outputs (B, K), a sigmoid each."""

    name = "multilabel"

    def check(self, outputs, batch):
        if outputs.dim() != 2:
            raise InputError(
                f"loss='multilabel' takes logits (B, K), not {shape_text(outputs)}"
            )
        _check_values("multilabel", outputs, batch)

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
                "loss='multilabel' takes labels of 0 and 1, not from "
                f"{labels.min():g} to {labels.max():g}"
            )
        p = torch.sigmoid(outputs.detach().double())
        return (labels - p).to(outputs.dtype)

    def nll(self, outputs, batch):
        return float(
            functional.binary_cross_entropy_with_logits(
                outputs.double(), _values(outputs, batch), reduction="sum"
            )
        )

    def terms(self, outputs, batch):
        return float(outputs.numel())


class Regression(Loss):
    """Gaussian values of variance 1: outputs (B,) or (B, K), -log p = 1/2 (y - f)^2.

    The score is y - f, of mean 0 and covariance 1. `sampled` draws it from -1 and 1
    instead of a normal distribution: the same mean and covariance, and thus an
    unbiased Fisher too, without the noise of the residual's size.
    """

    name = "regression"

    def check(self, outputs, batch):
        if outputs.dim() > 2:
            raise InputError(
                "loss='regression' takes outputs (B,) or (B, K), not "
                f"{shape_text(outputs)}"
            )
        _check_values("regression", outputs, batch)

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

    def nll(self, outputs, batch):
        return float(0.5 * (_values(outputs, batch) - outputs.double()).square().sum())

    def terms(self, outputs, batch):
        return outputs.numel() / 2  # the usual loss is the mean of (y - f)^2


class Given(Loss):
    """A user's function of the model's output and the labels: (B,) negative
    log-likelihoods. Nothing is known of the distribution, so that labels cannot be
    drawn from it."""

    name = "callable"

    def __init__(self, function: Callable):
        self._function = function

    def outputs(self, raw, batch):
        losses = self._function(raw, batch.labels)
        if not isinstance(losses, Tensor) or losses.shape != (batch.size,):
            given = (
                tuple(losses.shape)
                if isinstance(losses, Tensor)
                else type(losses).__name__
            )
            raise InputError(
                "loss(output, labels) must return one negative log-likelihood per "
                f"example, a tensor ({batch.size},), not {given}"
            )
        return losses

    def given(self, outputs, batch):
        return torch.ones_like(outputs, requires_grad=False)


_NAMED = {
    "classification": Classification,
    "multilabel": Multilabel,
    "regression": Regression,
    "causal_lm": lambda: Classification(shift=True),
}
LOSSES = ("auto", *_NAMED)

_PROBLEM_TYPES = {  # transformers' names
    "regression": "regression",
    "single_label_classification": "classification",
    "multi_label_classification": "multilabel",
}


def find_loss(loss: str | Callable, model: nn.Module) -> Loss | None:
    """The loss of a name or function; None for "auto" where the model does not say,
    so that `guess_loss` must look at a batch."""
    if callable(loss):
        return Given(loss)
    if loss in _NAMED:
        return _NAMED[loss]()
    if loss != "auto":
        raise InputError(
            f"loss must be one of {', '.join(LOSSES)} or a function, not {loss!r}"
        )
    config = getattr(model, "config", None)
    problem = getattr(config, "problem_type", None)
    if problem in _PROBLEM_TYPES:
        return find_loss(_PROBLEM_TYPES[problem], model)
    if type(model).__name__.endswith(("ForCausalLM", "LMHeadModel")):
        return find_loss("causal_lm", model)
    if type(model).__name__.endswith(("ForTokenClassification", "ForMaskedLM")):
        return find_loss("classification", model)
    return None


def guess_loss(raw, batch: Batch) -> Loss:
    """The loss that the outputs' shape and the labels' type speak for."""
    outputs = Loss().outputs(raw, batch)
    labels = batch.labels
    real = labels is not None and labels.dtype.is_floating_point
    if outputs.dim() == 1 or (outputs.dim() == 2 and outputs.shape[1] == 1):
        return Regression()
    if outputs.dim() == 2 and not (real and labels.shape == outputs.shape):
        return Classification()
    if outputs.dim() == 2 and bool(((labels == 0) | (labels == 1)).all()):
        return Multilabel()
    raise InputError(
        f"loss='auto' does not know what outputs {shape_text(outputs)} mean: give "
        f"loss as one of {', '.join(_NAMED)} or as a function"
    )


def columns(values: Tensor) -> Iterator[Tensor]:
    """For each output of an example a direction that has only that one."""
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
    """The labels as real numbers, float64, like outputs."""
    if batch.labels is None:
        raise InputError(NO_LABELS)
    return batch.labels.to(outputs.device).double().view_as(outputs)
