"""Reads from autograd's graph which operations a forward pass used."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

_ALONG_A_DIMENSION = {
    "GatherBackward",
    "IndexAddBackward",
    "IndexCopyBackward",
    "IndexFillBackward",
    "IndexReduceBackward",
    "IndexSelectBackward",
    "ScatterAddBackward",
    "ScatterBackward",
    "ScatterReduceBackward",
    "SelectBackward",
    "SortBackward",
    "SplitBackward",
    "SplitWithSizesBackward",
    "TopkBackward",
    "UnbindBackward",
}
_ALONG_DIMENSIONS = {"FlipBackward", "RollBackward"}
_BY_INDICES = {"IndexBackward", "IndexPutBackward", "IndexPutImplBackward"}
_ANYWHERE = {
    "MaskedScatterBackward",
    "MaskedSelectBackward",
    "PackPaddedSequenceBackward",
    "PutBackward",
    "TakeBackward",
}


@dataclass(eq=False)
class Graph:
    ends: list[Tensor]  # leaf tensors
    # Equal for graphs with the same operations in the same order.
    signature: int
    # Name of an operation along the batch, which may move rows between examples,
    # depending on their values.
    moves_rows: str | None


def read_graph(outputs: Tensor, batch_size: int) -> Graph:
    """Reads the graph of `outputs` (batch_size, ...)."""
    ends, names = [], []
    moves_rows = None
    stack: list[Any] = [outputs.grad_fn] if outputs.requires_grad else []
    nodes = set(stack)
    while stack:
        node = stack.pop()
        name = node.name()
        below = [x for x, _ in node.next_functions if x is not None]
        on_data = not all(type(x).__name__ == "AccumulateGrad" for x in below)
        if on_data and _moves_rows(node, name.rstrip("0123456789"), batch_size):
            moves_rows = name
        if name.startswith("Transpose"):
            name += f"{node._saved_dim0},{node._saved_dim1}"
        elif name.startswith("Permute"):
            name += str(node._saved_dims)
        names.append(name)
        for child in below:
            if child in nodes:
                continue
            nodes.add(child)
            if type(child).__name__ == "AccumulateGrad":
                ends.append(child.variable)
            else:
                stack.append(child)
    return Graph(ends, hash(tuple(names)), moves_rows)


def _moves_rows(node, kind: str, batch_size: int) -> bool:
    if kind in _ANYWHERE:
        return True
    if kind in ("MmBackward", "BmmBackward"):
        if _is_weight(node.next_functions[1][0]):
            return False
        factor = node._saved_self
        return factor is None or factor.dim() == 2 or factor.shape[0] % batch_size != 0
    sizes = _sizes(node)
    batch = _batch_dimension(sizes, batch_size)
    if kind in _BY_INDICES:
        indices = node._saved_indices
        return batch < len(indices) and not _keeps_rows(indices[batch], batch_size)
    if kind == "SliceBackward":
        whole = node._saved_start in (None, 0) and node._saved_step == 1
        end = node._saved_end
        whole = whole and (end is None or sizes is None or end >= sizes[batch])
        return _dimension(node._saved_dim, sizes) == batch and not whole
    if kind in _ALONG_A_DIMENSION:
        return _dimension(node._saved_dim, sizes) == batch
    if kind in _ALONG_DIMENSIONS:
        dims = node._saved_dims
        return not dims or batch in (_dimension(dim, sizes) for dim in dims)
    return False


def _is_weight(node) -> bool:
    """Returns whether a factor is a parameter (or its transpose) or has no gradient."""
    while node is not None and type(node).__name__ != "AccumulateGrad":
        below = node.next_functions
        if len(below) != 1:
            return False
        node = below[0][0]
    return node is None or isinstance(node.variable, nn.Parameter)


def _sizes(node) -> tuple[int, ...] | None:
    """Sizes of the operation's input, if its node has them."""
    if node.name().startswith("Unbind"):
        sizes = list(node._input_metadata[0].shape)
        sizes.insert(
            _dimension(node._saved_dim, [0, *sizes]), len(node._input_metadata)
        )
        return tuple(sizes)
    sizes = getattr(node, "_saved_self_sym_sizes", None)
    if sizes is None and isinstance(getattr(node, "_saved_self", None), Tensor):
        sizes = node._saved_self.shape
    return None if sizes is None else tuple(sizes)


def _batch_dimension(sizes, batch_size: int) -> int:
    """The first dimension of the batch's length, as in (B, L, C), (L, B, C) or
    (3, L, B, C), except the last one. 0 if none has it."""
    for dim, size in enumerate((sizes or ())[:-1]):
        if size == batch_size:
            return dim
    return 0


def _dimension(dim: int, sizes) -> int:
    if dim >= 1 << 63:  # a negative dimension, stored unsigned
        dim -= 1 << 64
    if dim >= 0:
        return dim
    return 0 if sizes is None else dim + len(sizes)


def _keeps_rows(index: Tensor | None, batch_size: int) -> bool:
    """Returns whether an index takes equally many rows per example, in order."""
    if index is None:
        return True
    if index.dtype in (torch.bool, torch.uint8):
        index = index.nonzero()[:, 0]
    if index.numel() % batch_size:
        return False
    rows = index.reshape(batch_size, -1)
    return bool((rows == torch.arange(batch_size, device=rows.device)[:, None]).all())
