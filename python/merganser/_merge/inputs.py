"""What a merge in memory is made of, checked as the engine checks files."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any

import torch
from torch import Tensor, nn

from .. import _C
from .._C import InputError, MethodInfo
from ..fisher_result import FisherResult
from ..gram import GramResult
from . import states
from .states import FLOATS


@dataclass(frozen=True)
class Part:
    """Weights, Fishers or Gram matrices, by name; `label` stands in errors."""

    label: str
    tensors: dict[str, Tensor]
    num_examples: float = 1.0  # N, of Fishers and Gram matrices

    def __contains__(self, name: str) -> bool:
        return name in self.tensors

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name]


@dataclass(frozen=True)
class Inputs:
    """Each list begins with the base's, if the method takes one; then the models'."""

    method: MethodInfo
    reference: Part  # base or first model: the result's names and types
    weights: list[Part]
    fishers: list[Part]
    grams: list[Part]

    @property
    def models(self) -> list[Part]:
        return self.weights[1:] if self.method.needs_base else self.weights

    def has_grams(self, name: str) -> bool:
        return any(name in part for part in self.grams)

    def is_merged(self, name: str) -> bool:
        """Else it is copied: integers, and what is the same in all models."""
        return self.reference[name].dtype in FLOATS and (
            self.has_grams(name) or all(name in part for part in self.fishers)
        )


def read_inputs(
    method: MethodInfo,
    base: nn.Module | Mapping[str, Tensor] | None,
    models: Sequence[nn.Module | Mapping[str, Tensor]],
    fishers: Sequence | None,
    base_fisher: Any,
    grams: Sequence | None,
    base_gram: Any,
) -> Inputs:
    """Raises InputError for what is missing, extra or does not fit."""
    parts = [
        Part(f"models[{t}]", states.state_of(model, f"models[{t}]"))
        for t, model in enumerate(_list_of(models, "models"))
    ]
    _C.check_count(method, len(parts))
    if base is not None:
        reference = Part("base", states.state_of(base, "base"))
    elif method.needs_base:
        raise InputError(
            f"{method.name} needs base, the model that the others come from"
        )
    else:
        reference = parts[0]
    for part in parts:
        states.check_state(part.tensors, reference.tensors, part.label, reference.label)
    inputs = Inputs(method, reference, [reference] * method.needs_base + parts, [], [])
    if method.needs_grams:
        given = _with_models(inputs, "gram", grams, base_gram, method.needs_base_gram)
        inputs = replace(inputs, grams=[_gram_of(*item) for item in given])
        _check_grams(inputs)
    if method.needs_fishers:
        given = _with_models(
            inputs, "fisher", fishers, base_fisher, method.needs_base_fisher
        )
        inputs = replace(inputs, fishers=[_fisher_of(*item, inputs) for item in given])
    return inputs


def _list_of(values: Any, label: str) -> list:
    """One item per model; a single model or Fisher is a mapping, not a list."""
    if not isinstance(values, Sequence) or isinstance(values, str | nn.Module):
        raise InputError(
            f"{label} must be a list, one item per model, not {type(values).__name__}"
        )
    return list(values)


def _with_models(
    inputs: Inputs, kind: str, given: Sequence | None, of_base: Any, needs_base: bool
) -> list[tuple[Any, str, Part]]:
    """Fishers or Gram matrices, their labels, and the models that they are of."""
    method = inputs.method.name
    items = [] if given is None else _list_of(given, f"{kind}s")
    if len(items) != len(inputs.models):
        raise InputError(
            f"{method} needs {kind}s, one per model: {len(inputs.models)}, not "
            f"{len(items)}"
        )
    labels = [f"{kind}s[{t}]" for t in range(len(items))]
    found = list(zip(items, labels, inputs.models, strict=True))
    if not needs_base:
        return found
    if of_base is None:
        raise InputError(f"{method} needs base_{kind}, that of the base itself")
    return [(of_base, f"base_{kind}", inputs.reference), *found]


def _fisher_of(fisher: Any, label: str, model: Part, inputs: Inputs) -> Part:
    """Every tensor has one but what has Gram matrices, and what only ewr changes."""
    part = _assigned(_load(fisher, label, FisherResult), label, model)
    missing = [
        name
        for name in _floats(model)
        if name not in part
        and not inputs.has_grams(name)
        and (inputs.method.name == "ewr" or not is_unchanged(inputs, name))
    ]
    if missing:
        raise InputError(
            f"{label} lacks tensors of its model: {states.some(missing)}; only "
            "a tensor that is the same in all models and the base needs no Fisher, and "
            "for ewr all do: estimate it without freezing, or give all models the "
            "base's tensor"
        )
    return part


def _gram_of(gram: Any, label: str, model: Part) -> Part:
    return _assigned(_load(gram, label, GramResult), label, model)


def is_unchanged(inputs: Inputs, name: str) -> bool:
    """Whether all models have the base's tensor, or without a base one another's."""
    return all(
        states.same_values(part[name], inputs.reference[name]) for part in inputs.models
    )


def _check_grams(inputs: Inputs) -> None:
    for name in inputs.reference.tensors:
        without = [part.label for part in inputs.grams if name not in part]
        if without and inputs.has_grams(name):
            raise InputError(
                f"{without[0]} has no Gram matrix for tensor {name!r}, and others have "
                "one"
            )


def _load(statistic, label: str, kind: type) -> FisherResult | GramResult:
    if isinstance(statistic, str | os.PathLike):
        statistic = kind.load(statistic)
    if not isinstance(statistic, kind):
        raise InputError(
            f"{label} must be a {kind.__name__} or the path of its file, not "
            f"{type(statistic).__name__}: the numbers of examples are needed too"
        )
    count = statistic.num_examples
    if not isinstance(count, Real) or not 0 < count < torch.inf:
        raise InputError(
            f"{label}: num_examples must be greater than 0 and finite, not {count!r}"
        )
    return statistic


def _assigned(statistic: FisherResult | GramResult, label: str, model: Part) -> Part:
    """To the names of a model: of tied tensors one has what is of all."""
    floats = _floats(model)
    states.check_extra(statistic, floats, label, "its model")
    for name, tensor in statistic.items():
        shape = floats[name].shape
        if isinstance(statistic, GramResult):
            shape = shape[1:] * 2  # (in, in); of a weight that is no matrix, none fits
        states.check_shape(tensor, shape, label, name, "its model")
        if tensor.dtype not in (torch.float32, torch.float64):
            raise InputError(
                f"{label}: tensor {name!r} is {tensor.dtype}, but must be float32 or "
                "float64: small values matter"
            )
    known = {
        states.memory_of(floats[name]): tensor for name, tensor in statistic.items()
    }
    tensors = {
        name: statistic[name] if name in statistic else known[states.memory_of(tensor)]
        for name, tensor in floats.items()
        if name in statistic or states.memory_of(tensor) in known
    }
    return Part(label, tensors, float(statistic.num_examples))


def _floats(model: Part) -> dict[str, Tensor]:
    return {name: t for name, t in model.tensors.items() if t.dtype in FLOATS}
