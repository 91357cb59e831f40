"""What a model's outputs say about labels, and the directions of its Fisher.

A loss reads the outputs of one forward pass, (B, ...), as a distribution over
labels. An example's Fisher is sum_k (J^T v_k)^2 with J the Jacobian of its outputs;
an estimator is a choice of the v_k, and each v_k is the gradient of a log-likelihood
with respect to the outputs. Formulas: docs/method.md, section 3.
"""

from collections.abc import Iterator, Mapping

from torch import Tensor

from .._C import InputError
from .._fisher.batches import Batch

# What a row's number within its example may need of the 64 bits of a key.
_ROW_BITS = 24
NO_LABELS = "estimator='empirical' takes the data's labels, but a batch has no 'labels'"


class Loss:
    """The common part; `outputs` are (B, ...) tensors, one row per example."""

    name: str

    def outputs(self, raw, batch: Batch) -> Tensor:
        """The tensor in what the model returns: itself, `.logits` or the first."""
        if isinstance(raw, Mapping):  # transformers' ModelOutput
            raw = raw["logits"] if "logits" in raw else next(iter(raw.values()))
        elif isinstance(raw, tuple | list):
            raw = raw[0]
        if not isinstance(raw, Tensor) or raw.dim() == 0 or len(raw) != batch.size:
            given = tuple(raw.shape) if isinstance(raw, Tensor) else type(raw).__name__
            raise InputError(
                f"the model must return a tensor with a row for each of the "
                f"{batch.size} examples of a batch, not {given}"
            )
        self.check(raw, batch)
        return raw

    def check(self, outputs: Tensor, batch: Batch) -> None:
        """Raises InputError where the outputs have another shape than the loss's."""

    def exact(self, outputs: Tensor, batch: Batch) -> Iterator[Tensor]:
        """Directions v_k like `outputs` with sum_k v_k v_k^T the Fisher of the
        outputs, example by example."""
        raise NotImplementedError

    def sampled(self, outputs: Tensor, batch: Batch, seed: int, sample: int) -> Tensor:
        """The direction of labels drawn from the model. A draw depends on seed,
        sample and the example's index only."""
        raise NotImplementedError

    def given(self, outputs: Tensor, batch: Batch) -> Tensor:
        """The direction of the data's labels."""
        raise NotImplementedError

    def nll(self, outputs: Tensor, batch: Batch) -> float:
        """sum_i -log p(y_i | x_i) of the data's labels, but for what is constant."""
        raise NotImplementedError

    def terms(self, outputs: Tensor, batch: Batch) -> float:
        """What the usual training loss, a mean, divides the batch's sum of negative
        log-likelihoods by: terms * its gradient is the gradient of that sum."""
        raise NotImplementedError


def shape_text(x: Tensor) -> str:
    """As (B, ...): a model is first looked at with fewer examples than a batch has."""
    return f"({', '.join(['B', *map(str, x.shape[1:])])}{',' * (x.dim() == 1)})"


def row_keys(indices: Tensor, counted: Tensor) -> Tensor:
    """A number for each counted row: the example's, and which of its rows it is.

    Rows are numbered among the counted ones, so that padding, on whichever side,
    changes no draw. An example with one row has its own number.
    """
    if counted.dim() == 1:
        return indices
    rank = counted.long().cumsum(1) - 1
    return ((indices.to(counted.device)[:, None] << _ROW_BITS) + rank)[counted]
