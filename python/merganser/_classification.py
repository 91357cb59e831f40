"""Directions in logit space whose gradients, squared, make up a Fisher.

An example's Fisher is sum_k (J^T v_k)^2 with J the Jacobian of its logits; an
estimator is a choice of the v_k. The gradient of log p(y) with respect to the
logits is onehot(y) - p. Formulas: docs/method.md, section 3.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from . import _C, ops
from ._C import InputError


def exact_directions(logits: Tensor) -> list[Tensor]:
    """K - 1 directions v_k (B, K) with sum_k v_k v_k^T = diag(p) - p p^T."""
    return _C.exact_directions(logits)


def sampled_directions(
    logits: Tensor, indices: Tensor, seed: int, samples: int
) -> Iterator[Tensor]:
    """`samples` directions of labels drawn from the model, each / sqrt(samples).

    The label depends on seed, the example's index (B,) and the sample's number
    only, and equals the one that the C++ estimator draws.
    """
    p = torch.softmax(logits.detach().double(), dim=-1)
    for sample in range(samples):
        labels = ops.sample_labels(p, indices, seed, sample)
        yield _C.label_direction(logits, labels).div_(samples**0.5)


def label_direction(logits: Tensor, labels: Tensor | None) -> list[Tensor]:
    """The direction of the data's labels (B,)."""
    if labels is None:
        raise InputError(
            "estimator='empirical' takes the data's labels, but a batch has no 'labels'"
        )
    classes = logits.shape[1]
    if not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        raise InputError(
            f"labels must be from 0 to {classes - 1}, the classes the model has; "
            f"got {int(labels.min())} to {int(labels.max())}"
        )
    return [_C.label_direction(logits, labels.long())]
