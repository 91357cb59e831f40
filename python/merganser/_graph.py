"""What autograd's graph of a forward pass tells of the operations in it."""

from dataclasses import dataclass

import torch
from torch import Tensor

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
    "SortBackward",
    "TopkBackward",
}
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
    ends: list[Tensor]  # the tensors with which it begins
    # Equal where the same operations follow each other in the same way.
    signature: int
    # An operation that chooses rows by their values, and may so take them from one
    # example's place to another's.
    moves_rows: str | None


def read_graph(outputs: Tensor, batch_size: int) -> Graph:
    """The graph under `outputs` (batch_size, ...)."""
    ends, names = [], []
    moves_rows = None
    stack = [outputs.grad_fn] if outputs.requires_grad else []
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
    if kind in _ALONG_A_DIMENSION:
        return node._saved_dim == 0
    if kind in _BY_INDICES:
        return not _keeps_rows(node._saved_indices[0], batch_size)
    return kind in _ANYWHERE


def _keeps_rows(index: Tensor | None, batch_size: int) -> bool:
    """Whether the first of some indices takes from every example as much, in order."""
    if index is None:
        return True
    if index.dtype in (torch.bool, torch.uint8):
        index = index.nonzero()[:, 0]
    if index.numel() % batch_size:
        return False
    rows = index.reshape(batch_size, -1)
    return bool((rows == torch.arange(batch_size, device=rows.device)[:, None]).all())
