"""Sums of squared batch gradients, from ordinary backward passes."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from .. import ops
from .batches import Batch
from .model_state import trainable_parameters
from .per_example import with_last
from .squares import accumulator


class BatchMeanSquares:
    """Sum over batches of (gradient of sum_i v_i . outputs_i)^2.

    If v_i is the direction of a label drawn from the model, this is an unbiased
    estimate of the sum of per-example squares: labels are independent and the
    expected gradient is zero, so cross terms vanish in expectation. It equals
    B (gradient of the batch mean)^2, weighted by B. Works with any model.
    """

    def __init__(self, model: nn.Module):
        self._parameters = trainable_parameters(model)
        # Keys as in trainable_parameters.
        self.sums = {name: accumulator(p) for name, p in self._parameters.items()}

    def add(
        self,
        outputs_of: Callable[[Batch], Tensor],
        batch: Batch,
        directions_of: Callable[[Tensor, Batch], Iterable[Tensor]],
    ) -> None:
        """Adds a batch: one forward pass, and a backward pass per direction."""
        outputs = outputs_of(batch)
        for v, last in with_last(directions_of(outputs, batch)):
            gradients = torch.autograd.grad(
                outputs,
                list(self._parameters.values()),
                v,
                retain_graph=not last,
                allow_unused=True,
            )
            for total, gradient in zip(self.sums.values(), gradients, strict=True):
                if gradient is not None:
                    if gradient.is_sparse:  # from nn.Embedding(sparse=True)
                        gradient = gradient.to_dense()
                    ops.square_accumulate_(total, gradient)
