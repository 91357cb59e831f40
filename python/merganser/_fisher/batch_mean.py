"""Sums of squares of whole batches' gradients, by plain backward passes."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from .. import ops
from .batches import Batch
from .model_state import trainable_parameters
from .per_example import accumulator, with_last


class BatchMeanSquares:
    """sum over batches of (gradient of sum_i v_i . outputs_i)^2.

    With v_i the direction of a label drawn from the model, this is an unbiased
    estimate of the sum of per-example squares: labels are independent and the
    expected gradient is zero, so that cross terms vanish. B (gradient of the batch
    mean)^2, weighted by B, is the same number. Takes any model.
    """

    def __init__(self, model: nn.Module):
        self._parameters = trainable_parameters(model)
        # As model.named_parameters() names them
        self.sums = {name: accumulator(p) for name, p in self._parameters.items()}

    def add(
        self,
        outputs_of: Callable[[Batch], Tensor],
        batch: Batch,
        directions_of: Callable[[Tensor, Batch], Iterable[Tensor]],
    ) -> None:
        """Adds a batch's squares: one forward pass, a backward pass per direction."""
        outputs = outputs_of(batch)
        for v, last in with_last(directions_of(outputs, batch)):
            gradients = torch.autograd.grad(
                outputs,
                self._parameters.values(),
                v,
                retain_graph=not last,
                allow_unused=True,
            )
            for total, gradient in zip(self.sums.values(), gradients, strict=True):
                if gradient is not None:
                    if gradient.is_sparse:  # of nn.Embedding(sparse=True)
                        gradient = gradient.to_dense()
                    ops.square_accumulate_(total, gradient)
