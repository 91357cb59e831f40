"""Batches as people have them: dicts of a collator, or (inputs, labels) pairs."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from ._C import InputError


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
        return (item[0],), {"labels": item[1]}
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

    args = tuple(ready(value) for value in args)
    kwargs = {key: ready(value) for key, value in kwargs.items()}
    labels = kwargs.pop("labels", None)
    indices = kwargs.pop("index", None)
    if indices is None:
        indices = torch.arange(start, start + keep, device=device)
    return Batch(args, kwargs, labels, indices, keep)
