"""Likelihoods of labels given model outputs, and the directions of the Fisher.

A loss reads the outputs of one forward pass, (B, ...), as a distribution over
labels. The Fisher of an example is sum_k (J^T v_k)^2 with J the Jacobian of its
outputs. An estimator is a choice of the v_k; each v_k is the gradient of a
log-likelihood with respect to the outputs. Formulas: docs/method.md, section 3.
"""

from collections.abc import Iterator, Mapping

from torch import Tensor

from .._C import InputError
from .._fisher.batches import Batch

# Bits of a 64-bit key for the number of a row within its example.
_ROW_BITS = 24
NO_LABELS = "estimator='empirical' needs the data's labels, but a batch has no 'labels'"


class Loss:
    """Base class; `outputs` are (B, ...) tensors, one row per example."""

    name: str
    has_distribution = True  # False: labels cannot be drawn, nor expected

    def outputs(self, raw, batch: Batch) -> Tensor:
        """Finds the tensor in a model's return value: itself, `.logits`, the first."""
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
        """Raises InputError if the shape of the outputs does not fit the loss."""

    def probabilities(self, outputs: Tensor) -> Tensor:
        """The distribution's probabilities, or its mean if labels are real values."""
        raise NotImplementedError

    def exact(self, outputs: Tensor, batch: Batch) -> Iterator[Tensor]:
        """Directions v_k of the shape of `outputs`, with sum_k v_k v_k^T the Fisher of
        each example's outputs."""
        raise NotImplementedError

    def sampled(self, outputs: Tensor, batch: Batch, seed: int, sample: int) -> Tensor:
        """Direction of labels drawn from the model. A draw depends only on seed, sample
        and the example's index."""
        raise NotImplementedError

    def given(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Direction of the data's labels."""
        raise NotImplementedError

    def score(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Gradient of the sum of `nll` with respect to the outputs."""
        if batch.soft is None:
            return -self.given(outputs, batch)
        return self.mean(outputs, batch) - batch.soft.to(outputs)

    def mean(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Expected labels, in the shape of `outputs`; 0 where a row does not count."""
        raise NotImplementedError

    def basis(self, outputs: Tensor) -> list[Tensor] | None:
        """Orthonormal directions, in the shape of `outputs`, that span every score;
        None: there are too many, or they are unknown."""
        return None

    def nll(self, outputs: Tensor, batch: Batch) -> Tensor:
        """-log p(y_i | x_i) of each example, (B,), up to a constant, for the data's
        labels, or in expectation for the soft labels of the batch."""
        raise NotImplementedError

    def terms(self, outputs: Tensor, batch: Batch) -> float:
        """Divisor of the usual training loss, a mean: terms * its gradient is the
        gradient of the batch's sum of negative log-likelihoods."""
        raise NotImplementedError


def shape_text(x: Tensor) -> str:
    """Shape with B for the batch, as probes have fewer examples than a batch."""
    return f"({', '.join(['B', *map(str, x.shape[1:])])}{',' * (x.dim() == 1)})"


def row_keys(indices: Tensor, counted: Tensor) -> Tensor:
    """A key for each counted row: the example's index and the number of the row.

    Only counted rows are numbered, so that padding on either side changes no draw. If
    examples have one row each, their keys are their indices.
    """
    if counted.dim() == 1:
        return indices
    rank = counted.long().cumsum(1) - 1
    return ((indices.to(counted.device)[:, None] << _ROW_BITS) + rank)[counted]
