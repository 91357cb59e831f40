"""Inputs of a merge in memory, with the checks that the engine applies to files."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any

import torch
from torch import Tensor, nn

from .. import _C
from .._C import InputError, MethodInfo
from .._common.wrappers import is_shard
from .._fisher.stored import content_hash_of
from ..fisher_result import FisherResult
from ..gram import GramResult
from ..subspace_result import SubspaceResult
from . import states
from .states import FLOATS

TASK_VECTORS = "task_vectors"  # in place of Gram matrices


@dataclass(frozen=True)
class Part:
    """Weights, Fishers or Gram matrices by name; errors cite `label`."""

    label: str
    tensors: dict[str, Tensor]
    num_examples: float = 1.0  # N, for Fishers and Gram matrices
    estimator: str = ""
    task_vector: _C.TaskVectorStatistics | None = None
    scale: _C.FisherScale | None = None
    model_hash: str = ""  # of the checkpoint that a Fisher was estimated on

    def __contains__(self, name: str) -> bool:
        return name in self.tensors

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name]


@dataclass(frozen=True)
class Inputs:
    """Each list begins with the base's item if the method takes one."""

    method: MethodInfo
    reference: Part  # base or first model: names and dtypes of the result
    weights: list[Part]
    fishers: list[Part]
    grams: list[Part]
    averaged: frozenset[str] = frozenset()  # differ, and no Fisher has them
    subspace: _C.SubspaceFisher | None = None  # with all names of its tensors
    of_task_vectors: bool = False  # Gram matrices; `grams` has at most the base's

    @property
    def models(self) -> list[Part]:
        return self.weights[1:] if self.method.needs_base else self.weights

    def canonical_names(self) -> dict[str, str]:
        """The name by which each tensor is merged: one for tied tensors, which a file
        stores once."""
        groups: list[list[str]] = []
        of_kind: dict[tuple, list[list[str]]] = {}
        for name, tensor in self.reference.tensors.items():
            alike = of_kind.setdefault((tensor.dtype, tensor.shape), [])
            for group in alike:
                if self._are_tied(group[0], name):
                    group.append(name)
                    break
            else:
                alike.append([name])
                groups.append(alike[-1])
        return {name: _C.canonical_name(group) for group in groups for name in group}

    def _are_tied(self, a: str, b: str) -> bool:
        """True for one tensor in all models, or copies of it for random choices, which
        a recipe makes alike for tensors that are stored twice."""
        return all(
            states.memory_of(part[a]) == states.memory_of(part[b])
            or (self.method.is_random and states.are_equal(part[a], part[b]))
            for part in [self.reference, *self.models]
        )

    def has_grams(self, name: str) -> bool:
        if self.of_task_vectors:
            return _C.is_linear_weight(name, list(self.reference[name].shape))
        return any(name in part for part in self.grams)

    def is_merged(self, name: str) -> bool:
        """False: the tensor is copied (integers, equal tensors without a Fisher)."""
        if self.reference[name].dtype in FLOATS and self.subspace is not None:
            return any(name in tensors for _, tensors in self.subspace.groups)
        return self.reference[name].dtype in FLOATS and (
            self.has_grams(name)
            or all(name in part for part in self.fishers)
            or name in self.averaged
        )


def read_inputs(
    method: MethodInfo,
    base: nn.Module | Mapping[str, Tensor] | None,
    models: Sequence[nn.Module | Mapping[str, Tensor]],
    fishers: Sequence | None,
    base_fisher: Any,
    grams: Sequence | str | None,
    base_gram: Any,
    subspace: Any,
) -> Inputs:
    """Raises InputError for inputs that are missing, extra or do not fit."""
    parts = [
        Part(f"models[{t}]", states.state_of(model, f"models[{t}]"))
        for t, model in enumerate(_list_of(models, "models"))
    ]
    _C.check_count(method, len(parts))
    if base is not None:
        reference = Part("base", states.state_of(base, "base"))
    elif method.needs_base:
        raise InputError(
            f"{method.name} needs base, the model that the others were fine-tuned from"
        )
    else:
        reference = parts[0]
    for part in parts:
        states.check_state(part.tensors, reference.tensors, part.label, reference.label)
    inputs = Inputs(method, reference, [reference] * method.needs_base + parts, [], [])
    if method.needs_grams and isinstance(grams, str):
        inputs = _with_task_vectors(inputs, base, grams, base_gram)
    elif method.needs_grams:
        given = _with_models(inputs, "gram", grams, base_gram, method.needs_base_gram)
        inputs = replace(inputs, grams=[_gram_of(*item) for item in given])
        _check_grams(inputs)
    if method.needs_fishers:
        given = _with_models(
            inputs, "fisher", fishers, base_fisher, method.needs_base_fisher
        )
        inputs = replace(inputs, fishers=[_fisher_of(*item, inputs) for item in given])
        for part, (*_, model) in zip(inputs.fishers, given, strict=True):
            _check_fisher(part, model, inputs)
        _check_task_vectors(method, inputs.fishers, [base, *models])
        inputs = replace(inputs, averaged=_find_averaged(inputs))
    if method.needs_subspace or subspace is not None:
        inputs = replace(
            inputs, subspace=_subspace_of(subspace, inputs, [base, *models])
        )
    return inputs


def _list_of(values: Any, label: str) -> list:
    """Returns a list of one item per model; refuses a single model or Fisher."""
    if not isinstance(values, Sequence) or isinstance(values, str | nn.Module):
        raise InputError(
            f"{label} must be a list, one item per model, not {type(values).__name__}"
        )
    return list(values)


def _with_models(
    inputs: Inputs, kind: str, given: Sequence | None, of_base: Any, needs_base: bool
) -> list[tuple[Any, str, Part]]:
    """Fishers or Gram matrices with their labels and models."""
    method = inputs.method.name
    items = [] if given is None else _list_of(given, f"{kind}s")
    if len(items) != len(inputs.models):
        raise InputError(
            f"{method} needs {kind}s, one per model: expected {len(inputs.models)}, "
            f"got {len(items)}"
        )
    labels = [f"{kind}s[{t}]" for t in range(len(items))]
    found = list(zip(items, labels, inputs.models, strict=True))
    if not needs_base:
        return found
    if of_base is None:
        raise InputError(f"{method} needs base_{kind}, the base's own")
    return [(of_base, f"base_{kind}", inputs.reference), *found]


def _fisher_of(fisher: Any, label: str, model: Part, inputs: Inputs) -> Part:
    return assigned(
        load_statistic(fisher, label, FisherResult),
        label,
        model,
        [model, inputs.reference, *inputs.models],
    )


def _check_fisher(part: Part, model: Part, inputs: Inputs) -> None:
    """Checks that a Fisher has what other Fishers have, except for equal tensors."""
    missing = [
        name
        for name in _floats(model)
        if name not in part
        and not inputs.has_grams(name)
        and any(name in other for other in inputs.fishers)
        and (inputs.method.shrinks_base or not is_unchanged(inputs, name))
    ]
    if missing:
        raise InputError(
            f"{part.label} lacks tensors of its model that another Fisher has: "
            f"{states.some(missing)}; estimate it without freezing them"
        )


def _find_averaged(inputs: Inputs) -> frozenset[str]:
    averaged = [
        name
        for name in _floats(inputs.reference)
        if not inputs.has_grams(name)
        and not any(name in part for part in inputs.fishers)
        and not is_unchanged(inputs, name)
    ]
    if averaged:
        warnings.warn(
            "no Fisher has these tensors, so that they become the average by weight, "
            f"or with average_buffers False the base's: {states.some(averaged)}",
            stacklevel=4,
        )
    return frozenset(averaged)


def _with_task_vectors(inputs: Inputs, base: Any, grams: str, base_gram: Any) -> Inputs:
    if grams != TASK_VECTORS:
        raise InputError(
            f"grams must be a list, one item per model, or {TASK_VECTORS!r}, "
            f"not {grams!r}"
        )
    if base is None:
        raise InputError(f"grams {TASK_VECTORS!r} needs base")
    modules = base.modules() if isinstance(base, nn.Module) else ()
    if any(type(module).__name__ == "Conv1D" for module in modules):
        raise InputError(
            f"grams {TASK_VECTORS!r} expects weights of shape (out, in), but base has "
            "Conv1D, which stores them as (in, out)"
        )
    of_base = []
    if base_gram is not None and inputs.method.needs_base_gram:
        of_base = [_gram_of(base_gram, "base_gram", inputs.reference)]
    return replace(inputs, grams=of_base, of_task_vectors=True)


def _gram_of(gram: Any, label: str, model: Part) -> Part:
    return assigned(load_statistic(gram, label, GramResult), label, model, [])


def _check_task_vectors(method: MethodInfo, fishers: list[Part], models: list) -> None:
    """Raises InputError for a Fisher measured along another task vector, where the
    method uses that and the checkpoints are known.

    models: the base and the models as the caller passes them; fishers: likewise.
    """
    if not method.uses_rho:
        return
    of_base = content_hash_of(models[0])
    for t, (fisher, model) in enumerate(zip(fishers[1:], models[1:], strict=False)):
        if fisher.task_vector is None:
            continue
        expected = (fisher.task_vector.base_model_hash, fisher.model_hash)
        for hashes, label in zip(
            zip(expected, (of_base, content_hash_of(model)), strict=True),
            ("base", f"models[{t}]"),
            strict=True,
        ):
            if "" not in hashes and hashes[0] != hashes[1]:
                raise InputError(
                    f"{fisher.label} was measured along the task vector of other "
                    f"weights than those of {label}; estimate it with these models"
                )


def _check_hashes(content: _C.SubspaceFisher, models: list) -> None:
    """Raises InputError for another model than the one of a subspace Fisher, where the
    checkpoints of both are known."""
    labels = ["base", *(f"models[{t}]" for t in range(len(models) - 1))]
    losses = [content.base, *content.experts]
    for label, model, loss in zip(labels, models, losses, strict=False):
        found = content_hash_of(model)
        if "" not in (found, loss.model_hash) and found != loss.model_hash:
            raise InputError(
                f"subspace was estimated with other weights than those of {label}; "
                "pass the models in the order of its experts"
            )


def _subspace_of(given: Any, inputs: Inputs, models: list) -> _C.SubspaceFisher:
    """The subspace Fisher, also with the names of tied tensors.

    models: the base and the models as the caller passes them. Raises InputError unless
    it has every tensor that differs between them.
    """
    if isinstance(given, str | os.PathLike):
        given = SubspaceResult.load(given)
    if not isinstance(given, SubspaceResult):
        raise InputError(
            f"{inputs.method.name} needs subspace, a SubspaceResult or the path of its "
            f"file, not {type(given).__name__}"
        )
    _check_hashes(given.content, models)
    floats = _floats(inputs.reference)
    known = given.groups
    group_of = {name: group for group, names in known.items() for name in names}
    states.check_extra(group_of, floats, "subspace", "the base")
    every = [inputs.reference, *inputs.models]
    groups: dict[str, list[str]] = {group: [] for group in known}
    missing = []
    for name in floats:
        own = (
            name if name in group_of else _twin(name, group_of, inputs.reference, every)
        )
        if own is not None:
            groups[group_of[own]].append(name)
        elif not is_unchanged(inputs, name):
            missing.append(name)
    if missing:
        raise InputError(
            f"subspace lacks tensors that differ between the models: "
            f"{states.some(missing)}; estimate it on these models, with frozen "
            "parameters trainable (buffers must be equal)"
        )
    content = given.content
    return _C.SubspaceFisher(
        groups=list(groups.items()),
        base=content.base,
        experts=content.experts,
        points=content.points,
        seed=content.seed,
    )


def is_unchanged(inputs: Inputs, name: str) -> bool:
    """Returns whether all models have equal tensors, and the base too if given."""
    return all(
        states.same_values(part[name], inputs.reference[name]) for part in inputs.models
    )


def _check_grams(inputs: Inputs) -> None:
    for name in inputs.reference.tensors:
        without = [part.label for part in inputs.grams if name not in part]
        if without and inputs.has_grams(name):
            raise InputError(
                f"{without[0]} has no Gram matrix for tensor {name!r}, but others "
                "have one"
            )


def load_statistic(statistic, label: str, kind: type) -> FisherResult | GramResult:
    if isinstance(statistic, str | os.PathLike):
        statistic = kind.load(statistic)
    if not isinstance(statistic, kind):
        raise InputError(
            f"{label} must be a {kind.__name__} or the path of its file, not "
            f"{type(statistic).__name__}: the number of examples is also needed"
        )
    if any(is_shard(x) for x in statistic.values()):
        raise InputError(
            f"{label} is sharded over processes: save it on all ranks and pass the file"
        )
    count: Any = statistic.num_examples
    if not isinstance(count, Real) or not 0 < float(count) < torch.inf:
        raise InputError(
            f"{label}: num_examples must be greater than 0 and finite, not {count!r}"
        )
    return statistic


def assigned(
    statistic: FisherResult | GramResult, label: str, model: Part, equal: list[Part]
) -> Part:
    """Assigns a statistic to a model's names. Tensors share one if they are tied in
    memory, or equal in all of `equal`."""
    floats = _floats(model)
    states.check_extra(statistic, floats, label, "its model")
    for name, tensor in statistic.items():
        shape = floats[name].shape
        if isinstance(statistic, GramResult):
            shape = shape[1:] * 2  # (in, in); never fits a weight that is not a matrix
        states.check_shape(tensor, shape, label, name, "its model")
        if tensor.dtype not in (torch.float32, torch.float64):
            raise InputError(
                f"{label}: tensor {name!r} is {tensor.dtype}, expected float32 or "
                "float64: small values matter"
            )
    tensors = {}
    for name in floats:
        own = name if name in statistic else _twin(name, statistic, model, equal)
        if own is not None:
            tensors[name] = statistic[own]
    if not isinstance(statistic, FisherResult):
        return Part(label, tensors, float(statistic.num_examples))
    return Part(
        label,
        tensors,
        float(statistic.num_examples),
        statistic.estimator,
        statistic.task_vector,
        statistic.scale,
        statistic.base_model_hash,
    )


def _twin(
    name: str, names: Iterable[str], model: Part, equal: list[Part]
) -> str | None:
    """The name in `names` of a tensor that is tied to this one."""
    memory = states.memory_of(model[name])
    for other in names:
        if states.memory_of(model[other]) == memory or (
            equal and all(states.are_tied(part[name], part[other]) for part in equal)
        ):
            return other
    return None


def _floats(model: Part) -> dict[str, Tensor]:
    return {name: t for name, t in model.tensors.items() if t.dtype in FLOATS}
