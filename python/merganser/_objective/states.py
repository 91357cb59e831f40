"""The weights of models, and a module that runs with any of them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from .._C import InputError
from .._common.sentence import is_sentence_model, names_in_memory
from .._common.wrappers import check_whole, unwrapped
from .._fisher.model_state import device_of, trainable_parameters
from .._fisher.stored import is_of_other_model, read_tensors
from .._merge.inputs import Part, assigned, load_statistic
from .._merge.states import (
    FLOATS,
    State,
    check_state,
    finite,
    memory_of,
    same_values,
    some,
    state_of,
)
from ..fisher_result import FisherResult

Model = nn.Module | Mapping[str, Tensor] | str | os.PathLike
Tensors = dict[str, Tensor]


class Carrier:
    """Runs a module with the weights of any model of its architecture.

    As a context it restores the module's own weights, whatever happens.
    """

    def __init__(self, module: nn.Module, label: str = "base"):
        """label: names the module in errors."""
        self._label = label
        self.module = unwrapped(module)
        check_whole(self.module)
        self.device = device_of(self.module)
        self.parameters: dict[str, Tensor] = dict(trainable_parameters(self.module))
        if not self.parameters:
            raise InputError("the model has no trainable parameter")
        self._tensors = state_of(self.module, label)
        self.own: State = {}

    def __enter__(self) -> Carrier:
        self.own = self.state()
        return self

    def __exit__(self, *_) -> None:
        self.load(self.own)
        self.own = {}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Copies the tensors of a state dict into the module."""
        self.put({name: state[name] for name in self._tensors})

    def put(self, tensors: Mapping[str, Tensor]) -> None:
        """Copies some tensors into the module; those tied to them also change."""
        with torch.no_grad():
            for name, x in tensors.items():
                self._tensors[name].copy_(x)

    def state(self) -> State:
        """A copy of the module's current tensors."""
        return {name: x.clone() for name, x in self._tensors.items()}

    def parameters_of(self, state: State) -> Tensors:
        """The trainable parameters of a model, in the module's dtypes."""
        return {name: state[name].to(p) for name, p in self.parameters.items()}

    def snapshot(self) -> Tensors:
        return {name: p.detach().clone() for name, p in self.parameters.items()}

    def restore(self, parameters: Tensors) -> None:
        with torch.no_grad():
            for name, p in self.parameters.items():
                p.copy_(parameters[name])

    def read(self, model: Model, label: str) -> State:
        """The tensors of a model: a module, a state dict or the path of a checkpoint.

        Raises InputError unless they have this module's names and shapes, and are
        finite.
        """
        if isinstance(model, nn.Module) and unwrapped(model) is self.module:
            state = self.own
        elif isinstance(model, str | os.PathLike):
            state = self._completed(self._read_files(model))
        else:
            state = state_of(model, label)
        check_state(state, self._tensors, label, self._label)
        for name, x in state.items():
            if x.dtype in FLOATS and not bool(x.isfinite().all()):
                raise InputError(
                    f"{label}: tensor {name!r} has values that are not finite"
                )
        return state

    def _read_files(self, path: str | os.PathLike) -> State:
        stored = read_tensors(path)
        if is_sentence_model(self.module):
            return names_in_memory(self.module, stored)
        return stored

    def _completed(self, stored: State) -> State:
        """Adds tied tensors and buffers that files leave out."""
        by_memory = {
            memory_of(x): name for name, x in self._tensors.items() if name in stored
        }
        kept = dict(stored)
        parameters = {name for name, _ in self.module.named_parameters()}
        for name, x in self._tensors.items():
            if name in stored:
                continue
            if memory_of(x) in by_memory:
                kept[name] = stored[by_memory[memory_of(x)]]
            elif name not in parameters:
                kept[name] = x
        return kept

    def diagonal(
        self,
        found: FisherResult,
        label: str,
        model: Model,
        state: State,
        others: list[State],
    ) -> Tensors:
        """H = N F by trainable parameter, finite and not negative. Without a Fisher
        (frozen, when it was estimated) a parameter must be equal in all models."""
        if is_of_other_model(found, model, state):
            raise InputError(f"{label} is the Fisher of other weights than its model's")
        parts = [Part(label, x) for x in (state, *others)]
        part = assigned(found, label, Part(label, state), parts)
        missing = [
            name
            for name in self.parameters
            if name not in part
            and not all(same_values(state[name], other[name]) for other in others)
        ]
        if missing:
            raise InputError(
                f"{label} lacks tensors of its model: {some(missing)}; only a tensor "
                "that is equal in all models and the base needs no Fisher"
            )
        n = found.num_examples
        return {
            name: finite(n * part[name].to(self.device), label, name, 0.0)
            for name in self.parameters
            if name in part
        }


class Differences(Mapping[str, Tensor]):
    """a - b by name, computed when it is read."""

    def __init__(self, a: Tensors, b: Tensors):
        self._a = a
        self._b = b

    def __getitem__(self, name: str) -> Tensor:
        return self._a[name] - self._b[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._a)

    def __len__(self) -> int:
        return len(self._a)


def load_fisher(fisher: FisherResult | str | os.PathLike, label: str) -> FisherResult:
    found = load_statistic(fisher, label, FisherResult)
    assert isinstance(found, FisherResult)  # checked by the call
    return found


def carrier_of(*models: Model, label: str = "base") -> nn.Module:
    """The first module; the others may be state dicts. label: names it in the error."""
    for model in models:
        if isinstance(model, nn.Module):
            return model
    raise InputError(
        f"{label} must be a module, which runs with the weights of each model; the "
        "other models may be state dicts"
    )
