"""Batches in the forms users have: dicts from a collator, or (inputs, labels) pairs."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from .._C import InputError

INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


@dataclass
class Batch:
    args: tuple  # for model(*args, **kwargs)
    kwargs: dict
    labels: Tensor | None  # (B, ...)
    indices: Tensor  # (B,) int64, the examples' positions in the data set
    size: int  # B
    soft: Tensor | None = None  # expected labels in place of `labels`
    before: int = 0  # number of examples read before it

    def rows(self, begin: int, end: int) -> "Batch":
        """A batch of the examples [begin, end)."""
        return self._cut(slice(begin, end), end - begin)

    def take(self, rows: Tensor) -> "Batch":
        """A batch of the examples at these places."""
        return self._cut(rows.to(self.indices.device), len(rows))

    def _cut(self, rows: slice | Tensor, size: int) -> "Batch":
        parts = (self.args, self.kwargs, self.labels, self.indices, self.soft)
        args, kwargs, labels, indices, soft = _rows(parts, rows, self.size)
        return Batch(args, kwargs, labels, indices, size, soft)


def split_item(item) -> tuple[tuple, dict]:
    item = _with_dicts(item)
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
        raise InputError("a batch has labels twice: in the dict and next to it")
    raise InputError(
        "a batch must be a dict of tensors, a pair (inputs, labels) or a tensor, not "
        f"{type(item).__name__}"
    )


def _with_dicts(tree):
    """Dicts for other mappings, such as a tokenizer's, which are leaves to tree_map."""
    return tree_map(
        lambda x: _with_dicts(dict(x)) if isinstance(x, Mapping) else x, tree
    )


def size_of(args: tuple, kwargs: dict) -> int:
    """B. Positions may be (1, L), shared by all examples: other tensors show B."""
    if isinstance(ids := kwargs.get("input_ids"), Tensor) and ids.dim() > 0:
        return len(ids)
    inputs = {k: x for k, x in kwargs.items() if k not in ("labels", "index")}
    leaves = tree_leaves((args, inputs, kwargs))
    tensors = [x for x in leaves if isinstance(x, Tensor) and x.dim() > 0]
    if not tensors:
        raise InputError(
            "a batch has no tensor: pass return_tensors='pt' to the collator"
        )
    return next((len(x) for x in tensors if len(x) != 1), 1)


def make_batch(
    args,
    kwargs,
    size: int,
    rows: slice | Tensor,
    positions: Tensor,
    device,
    before: int,
) -> Batch:
    _check_rows("labels", kwargs.get("labels"), size, None)
    _check_rows("index", kwargs.get("index"), size, INTEGERS)
    args, kwargs = tree_map(
        lambda x: _ready(x, device) if isinstance(x, Tensor) else x,
        _rows((args, kwargs), rows, size),
    )
    labels = kwargs.pop("labels", None)
    indices = kwargs.pop("index", None)
    if indices is None:
        indices = positions.to(device)
    return Batch(args, kwargs, labels, indices.long(), len(positions), before=before)


def _ready(x: Tensor, device) -> Tensor:
    x = x.detach().to(device)
    return x.clone() if x.is_inference() else x  # autograd refuses inference tensors


def _rows(tree, rows: slice | Tensor, size: int):
    """`tree` with some rows of every tensor that has a row per example."""

    def cut(x):
        has_rows = isinstance(x, Tensor) and x.dim() > 0 and len(x) == size
        return x[rows] if has_rows else x

    return tree_map(cut, tree)


def _check_rows(name: str, value, size: int, dtypes) -> None:
    """Runs for every estimator: what is not labels may belong to the inputs."""
    if value is None:
        return
    what = "integers" if dtypes else "rows"
    if not isinstance(value, Tensor):
        given = type(value).__name__
    elif value.shape[:1] != (size,) or (dtypes and value.dim() != 1):
        given = f"one of shape {tuple(value.shape)}"
    elif dtypes and value.dtype not in dtypes:
        given = str(value.dtype)
    else:
        return
    raise InputError(
        f"{name} must be a tensor of {size} {what}, one per example, not {given}; "
        "pass several input tensors as a dict"
    )
