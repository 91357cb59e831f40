"""The tasks of a merge: an expert, its weight, its examples and its Fisher."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from .._C import InputError
from .._common.arguments import read_weights
from .._fisher.batches import Batch
from .._fisher.data import Data
from .._fisher.forward import Forward
from .._losses.classification import Classification
from .._merge.states import State
from .states import Carrier, Tensors, load_fisher


class Examples:
    """Batches of a data set that can be read several times.

    Those of a sample (`limit`) and of an iterator, which cannot be read again, are kept
    on the device; others are read again for each pass.
    """

    def __init__(self, data: Data, device: torch.device, keep: bool):
        self._data = data
        self.add_up = data.add_up
        self._device = device
        self._kept = list(data.read(device, None)) if keep else None

    def read(self, progress: Callable | None = None) -> Iterator[Batch]:
        if self._kept is None:
            yield from self._data.read(self._device, progress)
            return
        for batch in self._kept:
            yield batch
            if progress is not None:
                progress(batch.before + batch.size, self._data.used, "")

    @property
    def kept(self) -> list[Batch]:
        assert self._kept is not None  # requested at construction
        return self._kept

    @property
    def num_examples(self) -> int:
        """N_t; known once the data are read."""
        return self._data.num_examples

    @property
    def used(self) -> int:
        """n of the examples; known once the data are read."""
        return self._data.used

    @property
    def expected(self) -> int | None:
        """n before the data are read, if that is known."""
        return self._data.total if self._kept is None else self.used


@dataclass
class Task:
    name: str
    weight: float  # a_t
    expert: State
    examples: Examples
    h: Tensors | None  # H_t = N_t F_t, by trainable parameter

    @property
    def data_name(self) -> str:
        return self.name.replace("experts", "data")

    @property
    def total_weight(self) -> float:
        """a_t N_t; InputError if float32 cannot hold it."""
        found = self.weight * self.examples.num_examples
        if found > torch.finfo(torch.float32).max:
            raise InputError(
                f"weights overflow float32: {self.weight:g} times the "
                f"{self.examples.num_examples} examples of {self.data_name}"
            )
        return found

    @property
    def scale(self) -> float:
        """a_t N_t / n_t: the task's term is this times a sum over used examples."""
        return self.total_weight / self.examples.used


def read_tasks(
    carrier: Carrier,
    base: State,
    experts: Any,
    data: Any,
    weights: Any,
    fishers: Any,
    keep: bool,
    data_names: Sequence[str] | None = None,
    **options: Any,
) -> list[Task]:
    """options: those of Data. keep: hold all examples in memory. data_names: of the
    data sets, in errors; None: by position.

    N_t is the given num_examples, or the Fisher's, or the data's.
    """
    models = listed("experts", experts)
    if not models:
        raise InputError("experts must have at least one model")
    names = [f"experts[{t}]" for t in range(len(models))]
    states = [carrier.read(m, name) for m, name in zip(models, names, strict=True)]
    sets = listed("data", data)
    _check_length("data", sets, models)
    numbers = options.pop("num_examples")
    numbers = (
        [None] * len(models) if numbers is None else listed("num_examples", numbers)
    )
    _check_length("num_examples", numbers, models)
    found = [None] * len(models) if fishers is None else listed("fishers", fishers)
    _check_length("fishers", found, models)
    tasks = []
    for t, weight in enumerate(read_weights(weights, len(models), "expert", True)):
        label, number = f"fishers[{t}]", numbers[t]
        given = found[t]
        fisher = None if given is None else load_fisher(given, label)
        if number is None and fisher is not None:
            number = fisher.num_examples
        name = f"data[{t}]" if data_names is None else data_names[t]
        read = Data(sets[t], carrier.module, num_examples=number, label=name, **options)
        hold = keep or options["limit"] is not None or isinstance(sets[t], Iterator)
        h = None
        if fisher is not None:
            fisher = replace(fisher, num_examples=number)
            h = carrier.diagonal(fisher, label, models[t], states[t], [base, *states])
        examples = Examples(read, carrier.device, hold)
        tasks.append(Task(names[t], weight, states[t], examples, h))
    return tasks


def check_examples(
    task: Task,
    batches: Iterable[Batch],
    forward: Forward,
    labels: str | None,
    held_out: int = 0,
) -> None:
    """Runs the first batch, which determines the loss, and checks the examples.

    labels: what needs them; None: they are not needed. held_out: how many of the
    examples are not trained on.
    """
    data = task.data_name
    first = next(iter(batches), None)
    if first is None:
        return  # other ranks have all batches
    if labels is not None and first.labels is None:
        raise InputError(f"{data} has no labels, which {labels} needs")
    with torch.no_grad():
        outputs = forward(first)
    count = task.examples.expected
    if isinstance(forward.loss, Classification) and outputs.dim() == 2:
        classes = outputs.shape[1]
        if count is not None and count < classes:
            raise InputError(
                f"{data} has {count} examples, fewer than the model's {classes} classes"
            )
        if count is not None and count - held_out < classes:
            raise InputError(
                f"{data}: expected at least {classes} examples to train on, one for "
                f"each class, got {count} of which {held_out} are held out"
            )


def listed(name: str, values: Any) -> list:
    """A list of items, one per expert; refuses what is one item."""
    if isinstance(values, tuple | list):
        return list(values)
    wrong = isinstance(values, str | Mapping | nn.Module)
    if wrong or not isinstance(values, Sequence):
        raise InputError(
            f"{name} must be a list, one item per expert, not {type(values).__name__}"
        )
    return list(values)


def _check_length(name: str, values: list, models: list) -> None:
    if len(values) != len(models):
        raise InputError(
            f"{name} must have one item per expert: expected {len(models)}, got "
            f"{len(values)}"
        )
