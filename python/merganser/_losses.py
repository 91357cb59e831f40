"""What a model's outputs say about labels, and the directions of its Fisher.

A loss reads the outputs of one forward pass, (B, ...), as a distribution over
labels. An example's Fisher is sum_k (J^T v_k)^2 with J the Jacobian of its outputs;
an estimator is a choice of the v_k, and each v_k is the gradient of a log-likelihood
with respect to the outputs. Formulas: docs/method.md, section 3.
"""

from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from . import _C, ops
from ._batches import INTEGERS, Batch
from ._C import InputError

# Rows whose probabilities are held in float64 at a time, by their elements.
_CHUNK = 1 << 22
# What a row's number within its example may need of the 64 bits of a key.
_ROW_BITS = 24
_MAX_DIRECTIONS = 10_000
_NO_LABELS = (
    "estimator='empirical' takes the data's labels, but a batch has no 'labels'"
)


class Loss:
    """The common part; `outputs` are (B, ...) tensors, one row per example."""

    name: str

    def outputs(self, raw, batch: Batch) -> Tensor:
        """The tensor in what the model returns: itself, `.logits` or the first."""
        if isinstance(raw, Mapping):  # transformers' ModelOutput
            raw = raw["logits"] if "logits" in raw else next(iter(raw.values()))
        elif isinstance(raw, tuple | list):
            raw = raw[0]
        if not isinstance(raw, Tensor) or raw.dim() == 0 or len(raw) != batch.size:
            given = tuple(raw.shape) if isinstance(raw, Tensor) else type(raw).__name__
            raise InputError(
                f"the model must return a tensor with a row for each of the "
                f"{batch.size} examples of a batch, not {given}"
            )
        self.check(raw, batch)
        return raw

    def check(self, outputs: Tensor, batch: Batch) -> None:
        """Raises InputError where the outputs have another shape than the loss's."""

    def exact(self, outputs: Tensor, batch: Batch) -> Iterator[Tensor]:
        """Directions v_k like `outputs` with sum_k v_k v_k^T the Fisher of the
        outputs, example by example."""
        raise NotImplementedError

    def sampled(self, outputs: Tensor, batch: Batch, seed: int, sample: int) -> Tensor:
        """The direction of labels drawn from the model. A draw depends on seed,
        sample and the example's index only."""
        raise NotImplementedError

    def given(self, outputs: Tensor, batch: Batch) -> Tensor:
        """The direction of the data's labels."""
        raise NotImplementedError

    def nll(self, outputs: Tensor, batch: Batch) -> float:
        """sum_i -log p(y_i | x_i) of the data's labels, but for what is constant."""
        raise NotImplementedError

    def terms(self, outputs: Tensor, batch: Batch) -> float:
        """What the usual training loss, a mean, divides the batch's sum of negative
        log-likelihoods by: terms * its gradient is the gradient of that sum."""
        raise NotImplementedError


class Classification(Loss):
    """Softmax over K classes: one label per example, or one per position.

    Outputs (B, K), or (B, L, K) where an example is a sequence of L independent
    labels (given the text). Positions count where the data's label is not -100; where
    there are no labels, where the attention mask is not 0. `shift`: position t
    predicts the label of position t + 1, as a causal language model does.
    """

    def __init__(self, shift: bool = False):
        self.name = "causal_lm" if shift else "classification"
        self._shift = shift

    def check(self, outputs, batch):
        positions = (3,) if self._shift else (2, 3)
        if outputs.dim() not in positions or outputs.shape[-1] < 2:
            shape = "(B, L, K)" if self._shift else "(B, K) or (B, L, K)"
            raise InputError(
                f"loss='{self.name}' takes logits {shape} with K >= 2 classes, not "
                f"{_shape(outputs)}"
            )
        self._targets(outputs, batch)

    def exact(self, outputs, batch):
        if outputs.dim() == 2:
            _check_passes(outputs.shape[1] - 1)
            yield from _C.exact_directions(outputs)
            return
        counted = self._counted(outputs, batch)
        positions = counted.any(0).nonzero().flatten().tolist()
        _check_passes(len(positions) * (outputs.shape[-1] - 1))
        for t in positions:
            for v in _C.exact_directions(outputs[:, t]):
                direction = torch.zeros_like(outputs, requires_grad=False)
                direction[:, t] = v * counted[:, t, None]
                yield direction

    def sampled(self, outputs, batch, seed, sample):
        counted = self._counted(outputs, batch)
        keys = _keys(batch.indices, counted)

        def labels(logits, rows):
            p = torch.softmax(logits.double(), dim=-1)
            return ops.sample_labels(p, keys[rows], seed, sample)

        return self._directions(outputs, counted, labels)

    def given(self, outputs, batch):
        targets = self._targets(outputs, batch)
        if targets is None:
            raise InputError(_NO_LABELS)
        counted = self._counted(outputs, batch)
        chosen = targets.to(outputs.device)[counted].long()
        classes = outputs.shape[-1]
        if len(chosen) and not 0 <= int(chosen.min()) <= int(chosen.max()) < classes:
            raise InputError(
                f"labels must be from 0 to {classes - 1}, the classes the model has; "
                f"got {int(chosen.min())} to {int(chosen.max())}"
            )
        return self._directions(outputs, counted, lambda _, rows: chosen[rows])

    def nll(self, outputs, batch):
        targets = self._targets(outputs, batch).to(outputs.device).long()
        rows = outputs.float().flatten(0, -2)
        return float(functional.cross_entropy(rows, targets.flatten(), reduction="sum"))

    def terms(self, outputs, batch):
        targets = self._targets(outputs, batch)
        # Training losses look at the labels alone.
        counted = self._counted(outputs, batch) if targets is None else targets != -100
        return float(counted.sum())

    def _targets(self, outputs: Tensor, batch: Batch) -> Tensor | None:
        """The labels (B,) or (B, L) that stand beside the outputs; -100: none."""
        labels = batch.labels
        if labels is None:
            return None
        if labels.dtype not in INTEGERS or labels.shape != outputs.shape[:-1]:
            raise InputError(
                f"loss='{self.name}' takes labels {_shape(outputs[..., 0])} of "
                f"integers, not {labels.dtype} {_shape(labels)}"
            )
        return _shifted(labels, -100) if self._shift else labels

    def _counted(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Which rows of the outputs count, (B,) or (B, L) of bool."""
        shape, device = outputs.shape[:-1], outputs.device
        if len(shape) == 1:
            return torch.ones(shape, dtype=torch.bool, device=device)
        targets = self._targets(outputs, batch)
        mask = batch.kwargs.get("attention_mask")
        if targets is not None:
            counted = (targets != -100).to(device)
            if self._shift and mask is not None and mask.shape == shape:
                # Padding on the left has no token that could predict the first one.
                counted &= mask != 0
            return counted
        if mask is None:
            mask = torch.ones(shape, device=device)
        if mask.shape != shape:
            raise InputError(
                f"loss='{self.name}' needs labels or an attention_mask "
                f"{tuple(shape)}, to know which positions count"
            )
        mask = mask != 0
        return mask & _shifted(mask, False) if self._shift else mask

    def _directions(self, outputs, counted, labels_of) -> Tensor:
        """onehot(label) - p in the counted rows, 0 in the others."""
        v = torch.zeros_like(outputs, requires_grad=False)
        logits = outputs.detach()
        if outputs.dim() == 2:
            return _C.label_direction(logits, labels_of(logits, slice(None)))
        places = counted.nonzero(as_tuple=True)
        step = max(1, _CHUNK // outputs.shape[-1])
        for begin in range(0, len(places[0]), step):
            rows = slice(begin, begin + step)
            place = tuple(index[rows] for index in places)
            chunk = logits[place]
            v[place] = _C.label_direction(chunk, labels_of(chunk, rows))
        return v


class Multilabel(Loss):
    """K independent labels of 0 or 1 per example: outputs (B, K), a sigmoid each."""

    name = "multilabel"

    def check(self, outputs, batch):
        if outputs.dim() != 2:
            raise InputError(
                f"loss='multilabel' takes logits (B, K), not {_shape(outputs)}"
            )
        _check_values("multilabel", outputs, batch)

    def exact(self, outputs, batch):
        p = torch.sigmoid(outputs.detach().double())
        return _columns((p * (1 - p)).sqrt().to(outputs.dtype))

    def sampled(self, outputs, batch, seed, sample):
        p = torch.sigmoid(outputs.detach().double())
        pairs = torch.stack([1 - p, p], -1).reshape(-1, 2)
        keys = _keys(batch.indices, torch.ones_like(p, dtype=torch.bool))
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
                f"loss='regression' takes outputs (B,) or (B, K), not {_shape(outputs)}"
            )
        _check_values("regression", outputs, batch)

    def exact(self, outputs, batch):
        return _columns(torch.ones_like(outputs, requires_grad=False))

    def sampled(self, outputs, batch, seed, sample):
        rows = outputs.detach().reshape(batch.size, -1)
        keys = _keys(batch.indices, torch.ones_like(rows, dtype=torch.bool))
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
        f"loss='auto' does not know what outputs {_shape(outputs)} mean: give "
        f"loss as one of {', '.join(_NAMED)} or as a function"
    )


def _shape(x: Tensor) -> str:
    """As (B, ...): a model is first looked at with fewer examples than a batch has."""
    return f"({', '.join(['B', *map(str, x.shape[1:])])}{',' * (x.dim() == 1)})"


def _check_passes(count: int) -> None:
    if count > _MAX_DIRECTIONS:
        raise InputError(
            f"estimator='exact' would take {count} backward passes for a batch, one "
            "for each position and class: use 'mc'"
        )


def _columns(values: Tensor) -> Iterator[Tensor]:
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
            f"loss='{name}' takes labels {_shape(outputs)}, not {_shape(labels)}"
        )


def _values(outputs: Tensor, batch: Batch) -> Tensor:
    """The labels as real numbers, float64, like outputs."""
    if batch.labels is None:
        raise InputError(_NO_LABELS)
    return batch.labels.to(outputs.device).double().view_as(outputs)


def _keys(indices: Tensor, counted: Tensor) -> Tensor:
    """A number for each counted row: the example's, and which of its rows it is.

    Rows are numbered among the counted ones, so that padding, on whichever side,
    changes no draw. An example with one row has its own number.
    """
    if counted.dim() == 1:
        return indices
    rank = counted.long().cumsum(1) - 1
    return ((indices.to(counted.device)[:, None] << _ROW_BITS) + rank)[counted]


def _shifted(x: Tensor, last) -> Tensor:
    """(B, L): what stands at t + 1, and `last` at the end."""
    return torch.cat([x[:, 1:], torch.full_like(x[:, :1], last)], 1)
