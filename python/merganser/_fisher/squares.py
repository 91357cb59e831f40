"""Sums of squared per-example gradients."""

import torch
from torch import Tensor, nn

from .. import ops
from .model_state import trainable_parameters
from .per_example import PerExampleUses
from .uses import Use, add_squares
from .watch import Place


class PerExampleSquares(PerExampleUses):
    """sum_i (gradient of v_i . outputs_i)^2 for every trainable parameter."""

    def __init__(self, model: nn.Module, unsupported: str = "per_example"):
        super().__init__(model, unsupported)
        # Keys as in trainable_parameters.
        self.sums = {n: accumulator(p) for n, p in trainable_parameters(model).items()}

    def _add_uses(self, place: Place, uses: list[Use]) -> None:
        add_squares(place.of(self.sums[place.name]), uses)

    def _add_gradient(self, name: str, gradient: Tensor) -> None:
        ops.square_accumulate_(self.sums[name], gradient)


def accumulator(parameter: Tensor) -> Tensor:
    """Zeros in the parameter's shape, float32 or wider whatever its dtype."""
    return torch.zeros_like(
        parameter,
        dtype=torch.promote_types(parameter.dtype, torch.float32),
        memory_format=torch.contiguous_format,
        requires_grad=False,
    )
