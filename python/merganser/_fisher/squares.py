"""Sums of squared per-example gradients."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from .. import ops
from .._C import Error
from .._common.wrappers import part_of
from .model_state import trainable_parameters
from .passes import Passes
from .per_example import PerExampleUses
from .ranks import Ranks
from .uses import Use, add_squares
from .watch import Place


class PerExampleSquares(PerExampleUses):
    """sum_i (gradient of v_i . outputs_i)^2 for every trainable parameter."""

    def __init__(
        self,
        model: nn.Module,
        unsupported: str = "per_example",
        passes: Passes | None = None,
    ):
        super().__init__(model, unsupported, passes)
        # Keys as in trainable_parameters.
        self.sums = {n: accumulator(p) for n, p in trainable_parameters(model).items()}

    def _add_uses(self, place: Place, uses: list[Use]) -> None:
        add_squares(place.of(self._sum(place.name)), uses)

    def _add_gradient(self, name: str, gradient: Tensor) -> None:
        ops.square_accumulate_(self._sum(name), gradient)

    def _sum(self, name: str) -> Tensor:
        """The tensor that takes a parameter's squares."""
        return self.sums[name]


def to_means(sums: Mapping[str, Tensor], count: int, ranks: Ranks) -> None:
    """Divides sums over examples in place; raises Error unless they are finite."""
    not_finite = []
    for name, total in sums.items():
        part = part_of(total.div_(count))
        # Their max is finite only if all are; isfinite would double memory.
        if part.numel() and not part.amax().isfinite():
            not_finite.append(name)
    for names in ranks.gather(not_finite):
        if names:
            raise Error(f"the Fisher of {names[0]} is not finite")


def accumulator(parameter: Tensor) -> Tensor:
    """Zeros in the parameter's shape, float32 or wider whatever its dtype."""
    return torch.zeros_like(
        parameter,
        dtype=torch.promote_types(parameter.dtype, torch.float32),
        memory_format=torch.contiguous_format,
        requires_grad=False,
    )
