"""Names of the parameters in an optimizer's state, and of the same tensors in files."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from .. import _C
from .._C import InputError
from .._common.sentence import is_sentence_model, name_in_files
from .._common.wrappers import names_inside, parameters_inside, unwrapped
from ..recipes import inspect
from .skeleton import build_model, group_rules
from .state import Moments, OptimizerState

_WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "adapter_model.safetensors",
)
# PEFT adds this to the names of an adapter's parameters; its files lack it.
_ADAPTER = re.compile(r"\.(?:modules_to_save\.)?default(?=\.|$)")


class Weights:
    """The tensors of the checkpoint's model.

    Attributes:
        shapes: by name; None: the checkpoint has no safetensors.
        hash: for `base_model_hash`; empty: unknown.
    """

    def __init__(self, directory: Path):
        self.directory = directory
        found = [name for name in _WEIGHTS if (directory / name).is_file()]
        self.is_adapter = found[:1] == [_WEIGHTS[2]]
        self.path = directory / found[0] if self.is_adapter else directory
        self.shapes: dict[str, tuple[int, ...]] | None = None
        if found:
            tensors = inspect(self.path, hashes=False)["tensors"]
            self.shapes = {t["name"]: tuple(t["shape"]) for t in tensors}

    @property
    def hash(self) -> str:
        return "" if self.shapes is None else _C.content_hash(self.path)

    def name_of(self, names: list[str]) -> str | None:
        """The name in the file of a tensor with these names; None: not in the file."""
        for name in names:
            for variant in (name, _ADAPTER.sub("", name)):
                if self.shapes is None or variant in self.shapes:
                    return variant
        return None


def name_moments(
    state: OptimizerState, weights: Weights, model: nn.Module | None
) -> dict[str, Moments]:
    """The moments by the names of the weights' file; zeros for a parameter of a
    numbered state that had no gradient.

    Numbered parameters get the names of `model`'s, in the order of its groups; without
    `model` it is built from config.json, without weights. Raises InputError unless
    every shape fits.
    """
    numbered = all(isinstance(key, int) for key in state.moments)
    if numbered and model is None:
        model = build_model(weights.directory)
    names: Mapping[str, list[str]] = {}
    shapes: Mapping[str, tuple[int, ...]] = {}
    if model is not None:
        names, shapes = _parameters(unwrapped(model))
    keys = dict(
        zip(state.moments, names_inside(list(map(str, state.moments))), strict=True)
    )
    if numbered:
        assert model is not None
        keys = _match(state, unwrapped(model), shapes)
    named: dict[str, Moments] = {}
    for key, name in keys.items():
        stored = weights.name_of(names.get(name, [name]))
        if stored is None:
            raise InputError(
                f"{state.path}: {weights.path} lacks the parameter {name!r}: the state "
                "is of another model"
            )
        expected = (weights.shapes or shapes).get(stored, shapes.get(name))
        moments = state.moments.get(key) or _zeros(shapes[name])
        if expected not in (None, moments.shape):
            raise _other_shape(state, key, name, expected)
        named[stored] = moments
    return named


def _zeros(shape: tuple[int, ...]) -> Moments:
    zeros = functools.partial(torch.zeros, shape)
    return Moments(shape, zeros, zeros)


def _other_shape(state: OptimizerState, key, name: str, expected) -> InputError:
    return InputError(
        f"{state.path}: state {key} has the shape {list(state.moments[key].shape)}, "
        f"but {name!r} has {list(expected)}: the state is of another model"
    )


def _parameters(model: nn.Module):
    """All names of each trainable parameter, also those in files of
    sentence-transformers, by its first one; and the shapes."""
    first: dict[int, str] = {}
    names: dict[str, list[str]] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    for name, p in parameters_inside(model, remove_duplicate=False):
        if p.requires_grad:
            found = names.setdefault(first.setdefault(id(p), name), [])
            found.append(name)
            if is_sentence_model(model):
                found.append(name_in_files(model, name))
            shapes.setdefault(first[id(p)], tuple(p.shape))
    return names, shapes


def _match(
    state: OptimizerState, model: nn.Module, shapes: Mapping[str, tuple[int, ...]]
) -> dict[int, str]:
    """The name of each number, by the first rule for groups that fits."""
    found = state.groups or []
    sizes = [len(group) for group in found]
    problem = None
    for rule in group_rules(model, list(shapes)):
        groups = [group for group in rule if group]
        if [len(group) for group in groups] != [size for size in sizes if size]:
            continue
        keys = dict(zip(sum(found, []), sum(groups, []), strict=True))
        wrong = [
            (key, name)
            for key, name in keys.items()
            if key in state.moments and state.moments[key].shape != shapes[name]
        ]
        if not wrong:
            return keys
        problem = problem or wrong[0]
    if problem is not None:
        key, name = problem
        raise _other_shape(state, key, name, shapes[name])
    raise InputError(
        f"{state.path}: parameter groups of {' and '.join(map(str, sizes))}; expected "
        f"groups of the model's {len(shapes)} trainable parameters: pass the model as "
        "it was trained, with the same parameters frozen"
    )
