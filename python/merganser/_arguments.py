"""Checks of arguments that several functions share."""

from collections.abc import Collection
from numbers import Integral
from typing import Any

import torch

from ._C import InputError

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
