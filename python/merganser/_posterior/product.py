"""Products of Gaussian posteriors with one prior."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from .._C import InputError
from .._common.arguments import read_weights
from .._merge.states import FLOATS, State, check_state, same_values, some


class Gaussian(Protocol):
    mean: State
    precision: dict[str, Tensor]
    _ties: dict[str, str]


def check_compatible(
    posteriors: Sequence[Gaussian], base: Gaussian, weights: Any
) -> list[float]:
    """Returns one weight per posterior; raises InputError if the product has none."""
    if isinstance(posteriors, Mapping) or not isinstance(posteriors, Sequence):
        raise InputError("posteriors must be a list of Posteriors")
    if not posteriors:
        raise InputError("posteriors must have at least one item")
    kind = type(base)
    for t, p in enumerate(posteriors):
        if type(p) is not kind:
            raise InputError(
                f"posteriors[{t}] must be a {kind.__name__}, not {type(p).__name__}"
            )
        label = f"posteriors[{t}]"
        check_state(p.mean, base.mean, label, "base")
        different = sorted(p.precision.keys() ^ base.precision.keys())
        if different:
            raise InputError(
                f"{label} and base have precisions of different tensors: "
                f"{some(different)}"
            )
        _check_known(p, base, label)
        for name, values in p.precision.items():
            if (values < base.precision[name].to(values.device)).any():
                raise InputError(
                    f"{label}: the precision of tensor {name!r} is below the base's: "
                    "it must include the base's, as laplace(..., base_fisher) does"
                )
    return read_weights(weights, len(posteriors), "posterior", positive=False)


def multiply(
    posteriors: Sequence[Gaussian], base: Gaussian, weights: Sequence[float]
) -> dict[str, tuple[Tensor, Tensor]]:
    """Mean and precision, float64, of p_0 prod_t (p_t / p_0)^w_t."""
    result = {}
    for name, prior in base.precision.items():
        start, h0 = base.mean[name].double(), prior.double()
        total, plain = h0.clone(), torch.zeros_like(start)
        pull = torch.zeros_like(start)
        for p, w in zip(posteriors, weights, strict=True):
            h = p.precision[name].to(h0)
            tau = p.mean[name].to(start) - start
            total += w * (h - h0)
            plain += w * tau
            pull += w * h * tau
        step = torch.where(total == 0, plain, pull / total)
        result[name] = start + step, total
    return result


def _check_known(p: Gaussian, base: Gaussian, label: str) -> None:
    """Tensors without a precision must be the base's; integers are copied from it."""
    for name, x in base.mean.items():
        has_precision = name in base.precision or name in base._ties
        if has_precision or x.dtype not in FLOATS:
            continue
        if not same_values(p.mean[name].to(x.device), x):
            raise InputError(
                f"{label}: tensor {name!r} differs from the base's, but has no "
                "precision"
            )
