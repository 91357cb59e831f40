"""Passes of a model whose parameters torch's fully_shard has sharded over ranks."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from .batches import Batch
from .passes import OutputsOf, Passes
from .ranks import Ranks
from .watch import Call

# Needs of a rank, for the next pass.
_FORWARD = "forward"
_BACKWARD = "backward"
_NOTHING = "nothing"
_NOTHING_YET = "nothing, but lacks a graph for the others' backward passes"


class CommonPasses(Passes):
    """Passes that all ranks run together, as each needs the others' parameters.

    Every rank goes through its own batches at its own pace. Before each pass the ranks
    say what they need. While one needs a forward pass, all run one: the others with an
    example in place of their batch, whose outputs they drop. A rank whose batches are
    done joins the others' backward passes with gradients of zero.
    """

    def __init__(
        self, parameters: Mapping[str, Tensor], ranks: Ranks, end: Callable[[], None]
    ):
        """end: called at the end of each backward pass, on all ranks."""
        super().__init__(parameters)
        self._ranks = ranks
        self._end = end
        self._stand_in: Callable[[], Tensor] | None = None

    def stand_in(self, outputs_of: OutputsOf, example: Batch) -> None:
        """Takes the forward pass for the others to need."""
        self._stand_in = lambda: outputs_of(example)

    def watched(self, outputs_of: OutputsOf, batch: Batch) -> Tensor:
        # No second try without shared embeddings: a pass that fails ends all ranks.
        with self._ranks.passing(_FORWARD):
            return self.watch.forward(lambda: outputs_of(batch), batch.size)

    def unwatched(self, outputs_of: OutputsOf, batch: Batch) -> Tensor:
        with self._ranks.passing(_FORWARD):
            return super().unwatched(outputs_of, batch)

    def backward(
        self,
        outputs: Tensor,
        v: Tensor,
        keep_graph: bool,
        receive: Callable[[Call, Tensor], None],
    ) -> Mapping[str, Tensor]:
        while True:
            with self._ranks.passing(_BACKWARD) as needs:
                if _is_forward(needs):
                    assert self._stand_in is not None
                    with torch.no_grad():
                        self._stand_in()
                    continue
                found = super().backward(outputs, v, keep_graph, receive)
                self._end()
                return found

    def of_example(self, outputs_of: OutputsOf, example: Batch) -> Tensor:
        # Watched, so that the backward pass needs no gradients but the wanted ones.
        return self.watched(outputs_of, example)

    def gradients(
        self, outputs: Tensor, v: Tensor, keep_graph: bool
    ) -> Mapping[str, Tensor]:
        return self.backward(outputs, v, keep_graph, lambda call, grad: None)

    def finish(self) -> None:
        """Joins the other ranks' passes until they are done, too."""
        outputs = None
        while True:
            need = _NOTHING_YET if outputs is None else _NOTHING
            with self._ranks.passing(need) as needs:
                if not {_FORWARD, _BACKWARD} & set(needs):
                    self._end()
                    return
                if _is_forward(needs):
                    assert self._stand_in is not None
                    outputs = self.watch.forward(self._stand_in, 1)
                else:
                    assert outputs is not None
                    zeros = torch.zeros_like(outputs, requires_grad=False)
                    super().backward(outputs, zeros, True, lambda call, grad: None)
                    self._end()


def _is_forward(needs: list[str]) -> bool:
    """Returns whether the next pass of all ranks is a forward pass."""
    return _FORWARD in needs or _NOTHING_YET in needs
