"""Sums over examples in the span of a few vectors."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from .._losses.loss import Loss
from .batches import Batch
from .model_state import trainable_parameters
from .subspace import Columns, ExampleProducts


class SubspaceSums:
    """Mean gradient and Fisher of a model's loss in the span of columns.

    With u_i the products of the example's gradient with the columns of P: P^T grad is
    the sum of u_i at the labels, and P^T F P the sum of u_i u_i^T over the exact
    directions, off-diagonals included. Needs no parameter-sized matrix.
    """

    def __init__(
        self,
        model: nn.Module,
        columns: Columns,
        loss: Callable[[], Loss],
        *,
        gradient: bool = True,
        estimator: str = "auto",
        seed: int = 0,
        folds: int = 1,
        unsupported: str = "per_example",
    ):
        """loss, gradient, estimator: as for ExampleProducts; without gradient it stays
        zero. folds: number of parts of the examples, each with its own sums."""
        self.columns = columns
        device = next(iter(trainable_parameters(model).values())).device
        self._counts = [0] * folds
        self._position = 0  # of the next example
        self._gradients = torch.zeros(
            folds, columns.size, dtype=torch.float64, device=device
        )
        self._fishers = self._gradients.new_zeros(folds, columns.size, columns.size)
        self._products = ExampleProducts(
            model,
            columns,
            loss,
            self._receive,
            gradient=gradient,
            estimator=estimator,
            seed=seed,
            unsupported=unsupported,
        )

    @property
    def count(self) -> int:
        return sum(self._counts)

    @property
    def gradient(self) -> Tensor:
        """The mean gradient of the negative log-likelihood, (T G,), float64."""
        return self._gradients.sum(0) / self.count

    @property
    def fisher(self) -> Tensor:
        """The mean Fisher, (T G, T G), float64."""
        return self._fishers.sum(0) / self.count

    @property
    def folds(self) -> tuple[Tensor, Tensor, list[int]]:
        """Gradients (K, T G) and Fishers (K, T G, T G) as sums, and the numbers of
        examples."""
        return self._gradients, self._fishers, self._counts

    def of_fold(self, fold: int) -> tuple[Tensor, Tensor, int]:
        """Gradient and Fisher of a part, as sums, and its number of examples."""
        return self._gradients[fold], self._fishers[fold], self._counts[fold]

    def add(
        self,
        outputs_of: Callable[[Batch], Tensor],
        batch: Batch,
        position: int | None = None,
    ) -> None:
        """position: number of examples before the batch, by which it is divided into
        folds; None: the number of those added."""
        if position is not None:
            self._position = position
        self._products.add(outputs_of, batch)

    def add_up(self, over_ranks: Callable[[dict[str, Tensor], torch.device], None]):
        """Adds the sums of all ranks, by Data.add_up."""
        counts = torch.tensor(self._counts, device=self._gradients.device)
        sums = {
            "gradients": self._gradients,
            "fishers": self._fishers,
            "counts": counts,
        }
        over_ranks(sums, counts.device)
        self._counts = counts.tolist()

    def reset(self) -> None:
        """Begins again, at the model's current weights."""
        self._counts = [0] * len(self._counts)
        self._position = 0
        self._gradients.zero_()
        self._fishers.zero_()

    def _receive(self, gradients: Tensor, factors: Tensor) -> None:
        folds, size = len(self._counts), len(factors)
        for first in range(min(folds, size)):
            fold = (self._position + first) % folds
            rows = slice(first, None, folds)
            self._gradients[fold] += gradients[rows].sum((0, 1))
            some = factors[rows].flatten(0, 1)
            self._fishers[fold] += some.T @ some
        for i in range(size):
            self._counts[(self._position + i) % folds] += 1
        self._position += size
