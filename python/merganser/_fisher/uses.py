"""Per-example gradients of a parameter, as the factors that an operation leaves.

Each class holds the contribution of one use of a parameter to the gradients of the B
examples of a batch, and adds the sum of their squares to an accumulator in the
parameter's shape. If a forward pass uses a parameter several times, its gradients are
summed before the square: uses of one form are joined along the tokens. Formulas:
docs/method.md, section 3.
"""

from collections import defaultdict
from typing import NamedTuple

import torch
from torch import Tensor

from .. import ops


class Product(NamedTuple):
    """Matrix product: D_i^T A_i, (G, out, in) for G groups of channels."""

    input: Tensor  # A (B, L, G, in)
    grad: Tensor  # D (B, L, G, out)
    transposed: bool = False  # A_i^T D_i, for a weight (in, out)

    def add_to(self, sums: Tensor) -> None:
        # Autocast may compute in a dtype other than its input's.
        rows, columns = self.grad, self.input.to(self.grad.dtype)
        if self.transposed:
            rows, columns = columns, rows
        groups = sums.view(rows.shape[2], rows.shape[3], columns.shape[3])
        for group, total in enumerate(groups):
            ops.linear_square_accumulate_(
                total, columns[:, :, group], rows[:, :, group]
            )


class Rows(NamedTuple):
    """Embedding: rows of a table that tokens look up."""

    indices: Tensor  # (B, L)
    grad: Tensor  # (B, L, D)
    padding_idx: int = -1  # row without gradient; -1: none

    def add_to(self, sums: Tensor) -> None:
        ops.embedding_square_accumulate_(
            sums, self.indices, self.grad, padding_idx=self.padding_idx
        )


class TokenSum(NamedTuple):
    """Addition to every token: sum_l D_il."""

    grad: Tensor  # (B, L, C)

    def add_to(self, sums: Tensor) -> None:
        ops.bias_square_accumulate_(sums.view(-1), self.grad)


class ScaledSum(NamedTuple):
    """Scaling of every token: sum_l D_il x_il."""

    input: Tensor  # x (B, L, C)
    grad: Tensor  # (B, L, C)

    def add_to(self, sums: Tensor) -> None:
        # Computes in float32 or wider: half types save time in matrix products only.
        dtype = torch.promote_types(self.grad.dtype, torch.float32)
        ops.layer_norm_square_accumulate_(
            sums.view(-1), self.input.to(dtype), self.grad.to(dtype)
        )


class PerExample(NamedTuple):
    """The gradients themselves, for small parameters: positions, class tokens."""

    grad: Tensor  # (B, L, *shape)

    def add_to(self, sums: Tensor) -> None:
        total = self.grad.to(sums.dtype).sum(1)
        sums.add_(total.square().sum(0).view_as(sums))


Use = Product | Rows | TokenSum | ScaledSum | PerExample


# A use's class and its fields: of a tensor (B, L, ...), the sizes after the tokens.
Form = tuple


def form_of(use: Use) -> Form:
    """The form of a use: uses of equal forms differ only in their tokens."""
    fields = (x.shape[2:] if isinstance(x, Tensor) else x for x in use)
    return (type(use), *fields)


def can_join(forms: set[Form]) -> bool:
    """Returns whether add_squares takes uses of these forms together."""
    if len(forms) <= 1:
        return True
    return len(forms) == 2 and {form[0] for form in forms} == {Product, Rows}


def add_squares(sums: Tensor, uses: list[Use]) -> None:
    """sums += sum_i (sum of the uses' gradients of example i)^2."""
    by_form = defaultdict(list)
    for use in uses:
        by_form[form_of(use)].append(use)
    joined = [_join(same) for same in by_form.values()]
    if len(joined) == 1:
        joined[0].add_to(sums)
        return
    product = next(use for use in joined if isinstance(use, Product))
    rows = next(use for use in joined if isinstance(use, Rows))
    _add_tied(sums, product, rows)


def _join(uses: list[Use]) -> Use:
    """Joins uses of one form along the tokens."""
    if len(uses) == 1:
        return uses[0]
    joined = []
    for values in zip(*uses, strict=True):
        is_tensor = isinstance(values[0], Tensor)
        joined.append(torch.cat(values, 1) if is_tensor else values[0])
    return type(uses[0])(*joined)


def _add_tied(sums: Tensor, product: Product, rows: Rows) -> None:
    """Adds a table (V, D) that is both an embedding and the weight of a product.

    The rows of an example's own tokens have both gradients. They are computed row by
    row and removed from the product, which gives all other rows.
    """
    wide, narrow = product.grad[:, :, 0], product.input[:, :, 0]
    if product.transposed:
        wide, narrow = narrow, wide
    dtype = sums.dtype
    taken = []
    for i, ids in enumerate(rows.indices):
        tokens, place = ids.unique(return_inverse=True)
        gradient = wide[i][:, tokens].to(dtype).t() @ narrow[i].to(dtype)
        looked_up = rows.grad[i].to(dtype)
        looked_up = looked_up * (ids != rows.padding_idx)[:, None]
        gradient.index_add_(0, place, looked_up)
        sums.index_add_(0, tokens, gradient.square_())
        taken.append((i, tokens, wide[i][:, tokens]))
        wide[i][:, tokens] = 0
    ops.linear_square_accumulate_(sums, narrow.to(wide.dtype), wide)
    for i, tokens, columns in taken:  # other readers also hold this gradient
        wide[i][:, tokens] = columns
