"""Comparison of a model's outputs for the same examples in different batches."""

from math import inf

import torch
from torch import Tensor

from .._C import InputError


def check_close(few: Tensor, outputs: Tensor) -> None:
    if not close(few, outputs):
        raise InputError(
            "examples have different outputs alone than in their batch: the model "
            "mixes them, or a tensor without a row per example happens to have the "
            "length of the batch; use batches of one example"
        )


def close(a: Tensor, b: Tensor) -> bool:
    """Equal up to rounding, which is that of half types under autocast.

    Deep decoders amplify that of half types at single positions: there the sum of
    squares may decide.
    """
    a, b = a.detach(), b.detach()
    if a.shape != b.shape:
        return False
    finite = a.isfinite()
    if not torch.equal(finite, b.isfinite()):
        return False
    half = torch.is_autocast_enabled(a.device.type) or a.dtype.itemsize < 4
    tolerance = 5e-2 if half else 1e-4 if a.dtype.itemsize == 4 else 1e-9
    difference, b = (a - b).where(finite, 0), b.where(finite, 0)
    orders = [inf, 2] if half else [inf]
    return any(
        bool(_norm(difference, order) <= tolerance * _norm(b, order))
        for order in orders
    )


def _norm(x: Tensor, order: float) -> Tensor:
    return torch.linalg.vector_norm(
        x, order, dtype=torch.promote_types(x.dtype, torch.float32)
    )
