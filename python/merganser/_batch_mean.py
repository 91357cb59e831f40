"""Sums of squares of whole batches' gradients, by plain backward passes."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from . import ops
from ._layers import accumulator


class BatchMeanSquares:
    """sum over batches of (gradient of sum_i v_i . logits_i)^2.

    With v_i the direction of a label drawn from the model, this is an unbiased
    estimate of the sum of per-example squares: labels are independent and the
    expected gradient is zero, so that cross terms vanish. B (gradient of the batch
    mean)^2, weighted by B, is the same number. Takes any model.
    """

    def __init__(self, model: nn.Module):
        self._parameters = {
            name: p for name, p in model.named_parameters() if p.requires_grad
        }
        self.sums = {name: accumulator(p) for name, p in self._parameters.items()}

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        pass

    def forward(self, logits_of: Callable[[], Tensor], batch_size: int) -> Tensor:
        """logits_of(), a forward pass of the model over B examples: (B, K)."""
        return logits_of()

    def backward(self, logits: Tensor, v: Tensor, keep_graph: bool) -> None:
        """Adds the squares for the directions v (B, K) to the sums."""
        gradients = torch.autograd.grad(
            logits,
            self._parameters.values(),
            v,
            retain_graph=keep_graph,
            allow_unused=True,
        )
        for total, gradient in zip(self.sums.values(), gradients, strict=True):
            if gradient is not None:
                ops.square_accumulate_(total, gradient)
