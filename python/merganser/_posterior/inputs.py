"""Arguments of merganser.Posterior."""

from __future__ import annotations

import os
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from .._C import InputError
from .._common.arguments import check_count
from .._fisher.stored import is_of_other_model
from .._merge.checkpoint import read_state
from .._merge.states import (
    FLOATS,
    State,
    are_tied,
    check_extra,
    check_shape,
    memory_of,
    some,
    state_of,
)
from ..fisher_result import FisherResult

Model = nn.Module | Mapping[str, Tensor] | str | os.PathLike
Fisher = FisherResult | str | os.PathLike


def read_model(model: Model) -> State:
    if isinstance(model, str | os.PathLike):
        return read_state(model)
    return state_of(model, "model")


def read_fishers(
    fisher: Fisher, base_fisher: Fisher | None, model: Model, mean: State
) -> list[FisherResult]:
    """The Fishers of a model, and of its base if given, checked to fit the model and
    its tensors, `mean`."""
    fishers = [load_fisher(f) for f in (fisher, base_fisher) if f is not None]
    if is_of_other_model(fishers[0], model, mean):
        raise InputError("fisher belongs to a different model: its hash differs")
    names = sorted(fishers[0].keys() ^ fishers[-1].keys())
    if names:
        raise InputError(
            f"fisher and base_fisher have different tensors: {some(names)}"
        )
    for label, found in zip(("fisher", "base_fisher"), fishers, strict=False):
        check_extra(found, mean, label, "its model")
        for name, values in found.items():
            check_shape(values, mean[name].shape, label, name, "its model")
    return fishers


def load_fisher(fisher: Fisher) -> FisherResult:
    if isinstance(fisher, str | os.PathLike):
        return FisherResult.load(fisher)
    if not isinstance(fisher, FisherResult):
        raise InputError(
            "a Fisher must be a FisherResult or the path of its file, not "
            f"{type(fisher).__name__}"
        )
    return fisher


def find_ties(mean: State, precision: Mapping[str, Tensor]) -> dict[str, str]:
    """For tensors without a precision, the tied tensor that has one."""
    ties = {}
    for name, x in mean.items():
        if name in precision or x.dtype not in FLOATS:
            continue
        for other in precision:
            y = mean[other]
            if x.shape == y.shape and (memory_of(x) == memory_of(y) or are_tied(x, y)):
                ties[name] = other
                break
    return ties


def add_up(terms: list[tuple[float, Tensor]], delta: float) -> Tensor:
    """sum_i n_i F_i + delta: in float64, stored in the dtype of the first."""
    total = torch.full_like(terms[0][1], delta, dtype=torch.float64)
    for n, values in terms:
        total += n * values.double()
    return total.to(torch.promote_types(terms[0][1].dtype, torch.float32))


def make_generator(seed: int | torch.Generator) -> torch.Generator:
    if isinstance(seed, torch.Generator):
        return seed
    check_count("seed", seed, minimum=0)
    return torch.Generator().manual_seed(int(seed))
