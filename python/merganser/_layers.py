"""What each kind of layer adds to the sums of per-example squares.

A rule takes a layer, its input and the gradient of its output, (B, ...) each, and
adds the squares of its parameters' per-example gradients to `sums`, a dict with
an accumulator for each parameter that is wanted, under the parameter's name in
the layer; it fills those of `keys` and no other. A new kind of layer is one
function and one row of RULES. The formulas are those of docs/method.md, section 3.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from . import ops


def _tokens(x: Tensor, width: int) -> Tensor:
    """(B, ..., width) as (B, L, width)."""
    return x.reshape(x.shape[0], -1, width)


def _linear(layer: nn.Linear, sums: dict[str, Tensor], input: Tensor, grad: Tensor):
    grad = _tokens(grad, layer.out_features)
    if "weight" in sums:
        # Under autocast the layer works in another dtype than its input's.
        input = _tokens(input, layer.in_features).to(grad.dtype)
        ops.linear_square_accumulate_(sums["weight"], input, grad)
    if "bias" in sums:
        ops.bias_square_accumulate_(sums["bias"], grad)


def _embedding(
    layer: nn.Embedding, sums: dict[str, Tensor], input: Tensor, grad: Tensor
):
    ops.embedding_square_accumulate_(
        sums["weight"],
        input.reshape(input.shape[0], -1).long(),
        _tokens(grad, layer.embedding_dim),
        padding_idx=-1 if layer.padding_idx is None else layer.padding_idx,
    )


def _layer_norm(
    layer: nn.LayerNorm, sums: dict[str, Tensor], input: Tensor, grad: Tensor
):
    width = math.prod(layer.normalized_shape)
    grad = _tokens(grad, width)
    if "weight" in sums:
        # Normalised again rather than kept since the forward pass, and in at
        # least float32: the product with grad is not a matrix product, so that
        # half types would save nothing.
        dtype = torch.promote_types(grad.dtype, torch.float32)
        normalized = nn.functional.layer_norm(
            input.to(dtype), layer.normalized_shape, eps=layer.eps
        )
        ops.layer_norm_square_accumulate_(
            sums["weight"].view(-1), _tokens(normalized, width), grad.to(dtype)
        )
    if "bias" in sums:
        ops.bias_square_accumulate_(sums["bias"].view(-1), grad)


class Rule(NamedTuple):
    add: Callable[[nn.Module, dict[str, Tensor], Tensor, Tensor], None]
    keys: tuple[str, ...]


RULES = {
    nn.Linear: Rule(_linear, ("weight", "bias")),
    nn.Embedding: Rule(_embedding, ("weight",)),
    nn.LayerNorm: Rule(_layer_norm, ("weight", "bias")),
}


def find_rule(layer: nn.Module) -> Rule | None:
    """The rule for a layer, or None if there is none.

    A subclass has its parent's rule as long as it computes the same.
    """
    if isinstance(layer, nn.Embedding) and (
        layer.max_norm is not None or layer.scale_grad_by_freq
    ):
        return None
    for kind, rule in RULES.items():
        if isinstance(layer, kind) and type(layer).forward is kind.forward:
            return rule
    return None


def accumulator(parameter: Tensor) -> Tensor:
    """Zeros in the parameter's shape, float32 or wider whatever its dtype."""
    return torch.zeros_like(
        parameter,
        dtype=torch.promote_types(parameter.dtype, torch.float32),
        memory_format=torch.contiguous_format,
        requires_grad=False,
    )
