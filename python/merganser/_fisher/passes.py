"""Forward and backward passes over a batch."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from .batches import Batch
from .watch import Call, Watch

OutputsOf = Callable[[Batch], Tensor]


class Passes:
    """The passes that per-example gradients take."""

    def __init__(self, parameters: Mapping[str, Tensor]):
        """parameters: those that the model's operations use, by name."""
        self.parameters = parameters
        self.without_rule: dict[str, str] = {}  # names of parameters: reasons
        self.watch = Watch(parameters, self.without_rule)

    def watched(self, outputs_of: OutputsOf, batch: Batch) -> Tensor:
        """Runs a watched forward pass; expands shared embeddings where that works."""
        try:
            return self.watch.forward(lambda: outputs_of(batch), batch.size)
        except Exception:
            if not self.watch.shared_now:
                raise
            self.watch.share = False
            return self.watch.forward(lambda: outputs_of(batch), batch.size)

    def unwatched(self, outputs_of: OutputsOf, batch: Batch) -> Tensor:
        """Runs a forward pass without a graph."""
        with torch.no_grad():
            return outputs_of(batch)

    def backward(
        self,
        outputs: Tensor,
        v: Tensor,
        keep_graph: bool,
        receive: Callable[[Call, Tensor], None],
    ) -> Mapping[str, Tensor]:
        """Runs the backward pass of a watched forward pass; see Watch.backward."""
        return self.watch.backward(outputs, v, keep_graph, receive)

    def of_example(self, outputs_of: OutputsOf, example: Batch) -> Tensor:
        """Runs a forward pass for `gradients`."""
        return outputs_of(example)

    def gradients(
        self, outputs: Tensor, v: Tensor, keep_graph: bool
    ) -> Mapping[str, Tensor]:
        """The gradients of v . outputs for the parameters without a rule."""
        names = list(self.without_rule)
        gradients = torch.autograd.grad(
            outputs,
            [self.parameters[name] for name in names],
            v,
            retain_graph=keep_graph,
            allow_unused=True,
        )
        found = zip(names, gradients, strict=True)
        return {name: gradient for name, gradient in found if gradient is not None}
