"""Checks of arguments that several functions share."""

import math
from collections.abc import Collection, Sequence
from numbers import Integral, Real
from typing import Any

import torch

from .._C import InputError

MAX_COUNT = 2**63 - 1  # max that the metadata of a file can hold


def check_choice(name: str, value: Any, choices: Collection[str]) -> None:
    if value not in choices:
        raise InputError(f"{name} must be one of {', '.join(choices)}, not {value!r}")


def check_autocast(dtype: Any) -> None:
    if dtype not in (None, torch.bfloat16, torch.float16):
        raise InputError(
            "dtype must be None, or torch.bfloat16 or torch.float16 for autocast, not "
            f"{dtype}; for another dtype convert the model"
        )


def check_count(
    name: str, value: Any, minimum: int = 1, maximum: int = MAX_COUNT
) -> None:
    if not isinstance(value, Integral):
        raise InputError(f"{name} must be an integer, not {value!r}")
    if not minimum <= int(value) <= maximum:
        limit = "below 2**63" if maximum == MAX_COUNT else f"at most {maximum}"
        raise InputError(f"{name} must be at least {minimum} and {limit}, not {value}")


def check_number(name: str, value: Any, maximum: float = math.inf) -> float:
    """Returns the number; refuses negative ones and those above `maximum`."""
    if not isinstance(value, Real) or not 0 <= float(value) <= maximum:
        limit = "" if maximum == math.inf else f" and at most {maximum:g}"
        raise InputError(f"{name} must be a number of at least 0{limit}, not {value!r}")
    return float(value)


def check_finite(name: str, value: Any, *, positive: bool = False) -> None:
    """Refuses infinite and negative numbers. positive: also refuses 0."""
    valid = isinstance(value, Real) and 0 <= float(value) < math.inf
    if not valid or (positive and value == 0):
        kind = "positive" if positive else "not negative"
        raise InputError(f"{name} must be a finite number, {kind}, not {value!r}")


def read_weights(weights: Any, count: int, item: str, positive: bool) -> list[float]:
    """One weight per item, from a list or one number for all. positive: also refuses
    0."""
    if hasattr(weights, "tolist"):  # an array or tensor, maybe 0-d
        weights = weights.tolist()
    values = [weights] * count if isinstance(weights, Real) else weights
    if isinstance(values, str) or not isinstance(values, Sequence):
        raise InputError(f"weights must be numbers, one per {item}, not {weights!r}")
    if len(values) != count:
        raise InputError(
            f"weights must have {count} items, one per {item}, not {len(values)}"
        )
    for value in values:
        valid = isinstance(value, Real) and 0 <= float(value) < math.inf
        if not valid or (positive and value == 0):
            kind = "positive" if positive else "not negative"
            raise InputError(f"weights must be finite numbers, {kind}, not {value!r}")
    return [float(value) for value in values]
