"""Merges tensors in memory: with the engine on the CPU, with the op on a GPU."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from .. import _C, ops
from .._C import InputError
from .inputs import Inputs, Part, is_unchanged
from .states import finite


def make_engine(inputs: Inputs, weights: Any, parameters: Any) -> _C.MemoryMerge:
    """Creates the engine, which checks parameters as in a recipe."""
    if isinstance(parameters, Mapping) and "weight" in parameters:
        raise InputError("parameters cannot have weight: pass weights")
    engine = _C.MemoryMerge(
        inputs.method.name,
        {} if parameters is None else parameters,
        _settings(weights, _have_weights(inputs)),
        list(inputs.reference.tensors),
        [part.num_examples for part in inputs.fishers],
        [part.num_examples for part in inputs.grams],
        [part.task_vector for part in inputs.fishers],
        [part.scale for part in inputs.fishers],
        inputs.subspace,
    )
    if engine.unstable_weights is not None:
        warnings.warn(
            f"{engine.unstable_weights}; estimate it with a larger limit or with "
            'groups="global"',
            stacklevel=3,
        )
    for reason in engine.unstable_rhos:
        warnings.warn(
            f"{reason}; estimate it with a larger limit, or set rho", stacklevel=3
        )
    return engine


def are_auto(weights: Any) -> bool:
    """Whether the weights are "auto", which needs a subspace Fisher."""
    return isinstance(weights, Sequence) and any(isinstance(w, str) for w in weights)


def _have_weights(inputs: Inputs) -> list[bool]:
    """Whether each model has a weight: all but a subspace Fisher's directions."""
    found = [] if inputs.subspace is None else inputs.subspace.experts
    if len(found) != len(inputs.models):  # the engine refuses another number
        return [True] * len(inputs.models)
    return [bool(expert.counts) for expert in found]


def _settings(weights: Any, have: list[bool]) -> list[dict]:
    """The `parameters` of each model, as in a recipe."""
    count = sum(have)
    if weights is None:
        return [{}] * len(have)
    if hasattr(weights, "tolist"):  # an array or tensor, maybe 0-d
        weights = weights.tolist()
    if not isinstance(weights, Iterable) or isinstance(weights, Mapping | str):
        weights = [weights] * count
    weights = list(weights)
    if len(weights) != count:
        raise InputError(
            f"weights must have {count} items, one per "
            f"{'model' if all(have) else 'expert'}, not {len(weights)}"
        )
    rest = iter(weights)
    return [{"weight": next(rest)} if has else {} for has in have]


def measure_fishers(engine: _C.MemoryMerge, inputs: Inputs) -> None:
    """Gives the engine the Fishers if normalize_fishers needs their means; else warns
    of scales that differ."""
    names = [
        name
        for name in sorted(set(inputs.canonical_names().values()))
        if inputs.fishers
        and all(name in part for part in inputs.fishers)
        and not inputs.has_grams(name)
    ]
    if not any(map(engine.normalizes_fishers, names)):
        _warn_of_scales(inputs)
        return
    added = set()  # tied tensors share a Fisher
    for name in names:
        for i, part in enumerate(inputs.fishers):
            if (key := (i, id(part[name]))) not in added:
                added.add(key)
                engine.add_fisher(i, name, _on_cpu(part, name))


def _warn_of_scales(inputs: Inputs) -> None:
    """The note of `merganser plan`, as a warning."""
    estimators = {part.estimator for part in inputs.fishers} - {""}
    if note := _C.different_scales(estimators, inputs.method):
        warnings.warn(note, stacklevel=4)


def merge_tensor(engine: _C.MemoryMerge, inputs: Inputs, name: str) -> Tensor:
    """Returns a tensor on the first model's device, in the reference's dtype."""
    if not inputs.is_merged(name):
        return copy(inputs, name)
    method = inputs.method
    by_formula = not (method.needs_statistics or method.needs_subspace)
    by_formula = by_formula and name not in inputs.averaged
    # The engine raises Fishers to a power, the op does not.
    by_formula = by_formula and engine.fisher_power(name) == 1
    if by_formula and inputs.models[0][name].is_cuda:
        return merge_by_op(engine, inputs, name)
    return merge_by_engine(engine, inputs, name)


def merge_by_engine(engine: _C.MemoryMerge, inputs: Inputs, name: str) -> Tensor:
    like = inputs.reference[name]
    out = torch.empty(like.shape, dtype=like.dtype)
    has_grams = inputs.has_grams(name)
    engine.merge(
        name,
        out,
        [_on_cpu(part, name) for part in inputs.weights],
        [
            _on_cpu(part, name)
            for part in inputs.fishers
            if name in part and not has_grams
        ],
        [_on_cpu(part, name) for part in inputs.grams if has_grams and name in part],
        _on_cpu(inputs.reference, name)
        if has_grams and inputs.of_task_vectors
        else None,
    )
    return out.to(inputs.models[0][name].device)


def merge_by_op(engine: _C.MemoryMerge, inputs: Inputs, name: str) -> Tensor:
    method = inputs.method
    device = inputs.models[0][name].device
    dtype = inputs.reference[name].dtype
    weights = [finite(p[name], p.label, name).to(device) for p in inputs.weights]
    fishers = [finite(p[name], p.label, name, 0.0).to(device) for p in inputs.fishers]
    base = weights.pop(0) if method.needs_base else None
    base_fisher = fishers.pop(0) if method.needs_base_fisher else None
    # The op rounds to the first model's dtype, which must hold the result's.
    weights[0] = weights[0].to(torch.promote_types(weights[0].dtype, dtype))
    merged = ops.merge(
        base,
        weights,
        fishers,
        method=method.name,
        base_fisher=base_fisher,
        **engine.scalars(name),
    )
    return finite(merged.to(dtype), "the merged model", name)


def copy(inputs: Inputs, name: str) -> Tensor:
    """Copies the base's tensor, or without a base the models' common one."""
    reference = inputs.reference
    if reference is inputs.models[0] and not is_unchanged(inputs, name):
        raise InputError(
            f"tensor {name!r} has integers and cannot be merged, but differs between "
            "the models: pass base, from which it is copied"
        )
    tensor = finite(reference[name], reference.label, name)
    return tensor.to(inputs.models[0][name].device, copy=True)


def _on_cpu(part: Part, name: str) -> tuple[str, Tensor]:
    return part.label, part[name].cpu().contiguous()
