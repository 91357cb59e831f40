"""Checks of the arguments that several functions take."""

from collections.abc import Collection
from numbers import Integral
from typing import Any

import torch

from ._C import InputError

MOST = 2**63 - 1  # what the metadata of a file can hold


def check_choice(name: str, value: Any, choices: Collection[str]) -> None:
    if value not in choices:
        raise InputError(f"{name} must be one of {', '.join(choices)}, not {value!r}")


def check_autocast(dtype: Any) -> None:
    if dtype not in (None, torch.bfloat16, torch.float16):
        raise InputError(
            "dtype must be None, or torch.bfloat16 or torch.float16 for autocast, not "
            f"{dtype}; for another one convert the model"
        )


def check_count(name: str, value: Any, least: int = 1, most: int = MOST) -> None:
    if not isinstance(value, Integral):
        raise InputError(f"{name} must be a whole number, not {value!r}")
    if not least <= value <= most:
        limit = "below 2**63" if most == MOST else f"at most {most}"
        raise InputError(f"{name} must be at least {least} and {limit}, not {value}")
