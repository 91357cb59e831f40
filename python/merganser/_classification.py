"""Directions in logit space whose gradients, squared, make up a Fisher.

For one example with logits z and p = softmax(z), the gradient of log p(y) with
respect to z is onehot(y) - p. Everything here is exact in float64 and returned in
the logits' dtype. Formulas: docs/method.md, section 3.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from . import ops
from ._C import InputError


def exact_directions(logits: Tensor) -> Iterator[Tensor]:
    """K - 1 directions v_k (B, K) with sum_k v_k v_k^T = diag(p) - p p^T.

    The columns of the Cholesky factor, in closed form: with the tail sums
    s_k = p_k + ... + p_K,
        v_k[k] = sqrt(p_k s_{k+1} / s_k)
        v_k[j] = -p_j sqrt(p_k / (s_k s_{k+1})),  j > k
    evaluated as logarithms, which stay finite where a probability underflows. For
    two classes this is sqrt(p (1 - p)) (1, -1).
    """
    p = torch.log_softmax(logits.detach().double(), dim=-1)
    tail = p.flip(-1).logcumsumexp(-1).flip(-1)
    for k in range(p.shape[-1] - 1):
        v = torch.zeros_like(p)
        v[:, k] = (0.5 * (p[:, k] + tail[:, k + 1] - tail[:, k])).exp()
        scale = 0.5 * (p[:, k] - tail[:, k] - tail[:, k + 1])
        v[:, k + 1 :] = -(p[:, k + 1 :] + scale[:, None]).exp()
        yield v.to(logits.dtype)


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
        yield (_one_hot(labels, p) - p).div(samples**0.5).to(logits.dtype)


def label_direction(logits: Tensor, labels: Tensor | None) -> Tensor:
    """The direction of the data's labels (B,)."""
    if labels is None:
        raise InputError(
            "estimator='empirical' takes the data's labels, but a batch has no 'labels'"
        )
    count, classes = logits.shape
    if labels.is_floating_point() or labels.shape != (count,):
        raise InputError(
            f"labels must be {count} class numbers, not {labels.dtype} of shape "
            f"{tuple(labels.shape)}"
        )
    if count and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        raise InputError(
            f"labels must be from 0 to {classes - 1}, the classes the model has; "
            f"got {int(labels.min())} to {int(labels.max())}"
        )
    p = torch.softmax(logits.detach().double(), dim=-1)
    return (_one_hot(labels.to(p.device), p) - p).to(logits.dtype)


def _one_hot(labels: Tensor, like: Tensor) -> Tensor:
    return torch.zeros_like(like).scatter_(1, labels[:, None], 1.0)
