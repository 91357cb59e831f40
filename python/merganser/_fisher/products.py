"""Products of per-example gradients with given vectors, such as task vectors.

The gradient of example i is linear in its uses, so uses of any kinds add up. Each
function takes a use and T tensors in the shape of its place, (T, ...), and returns
<gradient of example i, tensor t>, (B, T), in float64. Formulas: docs/method.md,
section 2.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from .uses import PerExample, Product, Rows, ScaledSum, TokenSum, Use

# Max number of elements of the gradients of a weight that exist at a time on a GPU.
_SCRATCH = 1 << 24
# Reading a gradient costs about as much as its products with this number of tokens.
_TOKENS_PER_READ = 4


def products(use: Use, vectors: Tensor) -> Tensor:
    """(B, T) float64; vectors are float32 or wider."""
    if isinstance(use, Product):
        return _of_product(use, vectors)
    if isinstance(use, Rows):
        return _of_rows(use, vectors)
    if isinstance(use, TokenSum):
        gradients = _wide(use.grad, vectors).sum(1)
    elif isinstance(use, ScaledSum):
        gradients = (_wide(use.grad, vectors) * _wide(use.input, vectors)).sum(1)
    else:
        assert isinstance(use, PerExample)
        gradients = _wide(use.grad, vectors).sum(1)
    return gradients.flatten(1).double() @ vectors.flatten(1).double().T


def _of_rows(use: Rows, vectors: Tensor) -> Tensor:
    grad = _wide(use.grad, vectors)
    if use.padding_idx >= 0:
        grad = grad * (use.indices != use.padding_idx)[..., None]
    return torch.stack(
        [(F.embedding(use.indices, v) * grad).sum(-1).double().sum(1) for v in vectors],
        1,
    )


def _of_product(use: Product, vectors: Tensor) -> Tensor:
    rows, columns = _wide(use.grad, vectors), _wide(use.input, vectors)
    if use.transposed:
        rows, columns = columns, rows
    channels = rows.shape[2]  # groups of a convolution
    vectors = vectors.reshape(len(vectors), channels, rows.shape[3], columns.shape[3])
    d = use.grad.abs().amax((2, 3)) > 0  # (B, L): padding has no gradient
    return torch.stack(
        [
            _of_tokens(rows[:, :, g], columns[:, :, g], d, vectors[:, g])
            for g in range(channels)
        ]
    ).sum(0)


def _of_tokens(rows: Tensor, columns: Tensor, used: Tensor, vectors: Tensor) -> Tensor:
    """sum_l rows_il . (vector_t columns_il), by the cheaper of two orders."""
    count = len(vectors)
    tokens = int(used.sum())
    # Multiply-adds per weight: T a token, or one a token and T an example.
    direct = count * tokens
    gathered = tokens + _TOKENS_PER_READ * count * len(rows)
    if direct <= gathered:
        return _by_token(rows, columns, used, tokens, vectors)
    return _by_example(rows, columns, used, vectors)


def _by_token(rows, columns, used, tokens: int, vectors) -> Tensor:
    totals = vectors.new_zeros(len(rows), len(vectors), dtype=torch.float64)
    owner = None
    if tokens < used.numel():
        owner = used.nonzero()[:, 0]
        rows, columns = rows[used], columns[used]
    for t, vector in enumerate(vectors):
        if rows.shape[-1] <= columns.shape[-1]:
            values = (F.linear(columns, vector) * rows).sum(-1).double()
        else:
            values = (rows @ vector * columns).sum(-1).double()
        if owner is None:
            totals[:, t] = values.sum(1)
        else:
            totals[:, t].index_add_(0, owner, values)
    return totals


def _by_example(rows, columns, used, vectors) -> Tensor:
    """Computes the gradients of a few examples at a time, one on a CPU, where it stays
    in the cache."""
    flat = vectors.flatten(1).T
    length = used.shape[1]
    ends = (used * torch.arange(1, length + 1, device=used.device)).amax(1)
    ends = ends.clamp_(min=1).tolist()
    step = 1
    if rows.is_cuda:
        step = max(1, _SCRATCH // flat.shape[0])
    totals = []
    for begin in range(0, len(rows), step):
        some = slice(begin, begin + step)
        end = max(ends[some])
        gradients = rows[some, :end].transpose(1, 2) @ columns[some, :end]
        totals.append(gradients.flatten(1) @ flat)
    return torch.cat(totals).double()


def _wide(x: Tensor, vectors: Tensor) -> Tensor:
    return x.to(vectors.dtype)
