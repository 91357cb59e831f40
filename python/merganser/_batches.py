"""Batches as people have them: dicts of a collator, or (inputs, labels) pairs."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from ._C import InputError

INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


@dataclass
class Batch:
    args: tuple  # for model(*args, **kwargs)
    kwargs: dict
    labels: Tensor | None  # (B,)
    indices: Tensor  # (B,) int64, the examples' numbers
    size: int  # B


def read_batches(data: Iterable, device, limit: int | None) -> Iterator[Batch]:
    """The first `limit` examples of `data`, on `device`.

    Examples are numbered in the order in which they come, unless the batches have
    an "index" of their own.
    """
    start = 0
    for item in data:
        args, kwargs = _split(item)
        size = _size(args, kwargs)
        keep = size if limit is None else min(size, limit - start)
        if size > 0:
            yield _make_batch(args, kwargs, size, keep, start, device)
        start += keep
        if start == limit:
            return


def count_examples(data: Iterable) -> int | None:
    """How many examples there are in all, if that can be known beforehand."""
    if isinstance(data, DataLoader):
        try:
            return len(data.sampler)
        except TypeError:
            return None
    if isinstance(data, list | tuple):
        return sum(_size(*_split(item)) for item in data)
    return None


def _split(item) -> tuple[tuple, dict]:
    if isinstance(item, Mapping):
        return (), dict(item)
    if isinstance(item, Tensor):
        return (item,), {}
    if isinstance(item, list | tuple) and len(item) == 2:
        inputs, labels = item
        if not isinstance(inputs, Mapping):
            return (inputs,), {"labels": labels}
        if "labels" not in inputs:
            return (), {**inputs, "labels": labels}
        raise InputError("a batch has labels twice: in the dict and beside it")
    raise InputError(
        "a batch must be a dict of tensors, a pair (inputs, labels) or a tensor, not "
        f"{type(item).__name__}"
    )


def _size(args: tuple, kwargs: dict) -> int:
    for value in (*args, *kwargs.values()):
        if isinstance(value, Tensor) and value.dim() > 0:
            return len(value)
    raise InputError("a batch has no tensor: give the collator return_tensors='pt'")


def _make_batch(args, kwargs, size: int, keep: int, start: int, device) -> Batch:
    def ready(value):
        if not isinstance(value, Tensor):
            return value
        if value.dim() > 0 and len(value) == size:
            value = value[:keep]
        return value.detach().to(device)

    for name in ("labels", "index"):
        if kwargs.get(name) is not None:
            _check_integers(kwargs[name], name, size)
    args = tuple(ready(value) for value in args)
    kwargs = {key: ready(value) for key, value in kwargs.items()}
    labels = kwargs.pop("labels", None)
    indices = kwargs.pop("index", None)
    if indices is None:
        indices = torch.arange(start, start + keep, device=device)
    return Batch(args, kwargs, labels, indices.long(), keep)


def _check_integers(value, name: str, size: int) -> None:
    """Checked whatever the estimator: what is no labels may be part of the inputs."""
    if not isinstance(value, Tensor):
        given = type(value).__name__
    elif value.dtype not in INTEGERS or value.shape != (size,):
        given = f"{value.dtype} of shape {tuple(value.shape)}"
    else:
        return
    raise InputError(
        f"{name} must be {size} integers, a tensor of shape ({size},), not {given}; "
        "inputs of several tensors are given as a dict"
    )
