"""The gradient and the Fisher of a model in the span of a few vectors."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .._losses.loss import Loss
from .batches import Batch
from .per_example import PerExampleUses
from .products import products
from .uses import Use
from .watch import Place

ESTIMATORS = ("auto", "exact", "mc")


class Columns:
    """The columns tau_tg of P: vector t, zero outside of group g of the parameters.

    Column t G + g belongs to vector t and group g.
    """

    def __init__(
        self,
        parameters: Mapping[str, Tensor],
        vectors: Sequence[Mapping[str, Tensor]],
        groups: Mapping[str, str],
    ):
        """groups: the name of each parameter's group."""
        self.groups = list(dict.fromkeys(groups[name] for name in parameters))
        self.group_of = {name: self.groups.index(groups[name]) for name in parameters}
        self.vectors = len(vectors)
        self.stacked = {}  # (T, ...) by parameter, float32 or wider
        for name, parameter in parameters.items():
            dtype = torch.promote_types(parameter.dtype, torch.float32)
            self.stacked[name] = torch.stack(
                [vector[name].to(parameter.device, dtype) for vector in vectors]
            )

    @property
    def size(self) -> int:
        return self.vectors * len(self.groups)

    def combine(self, name: str, weights: Tensor) -> Tensor:
        """P w at a parameter; weights: (T G,)."""
        stacked = self.stacked[name]
        own = weights.view(self.vectors, -1)[:, self.group_of[name]]
        return torch.tensordot(own.to(stacked), stacked, 1)

    def inner(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """P^T x, (T G,), float64; names without a tensor count as zero."""
        total = self.zeros(self.vectors)
        for name, x in tensors.items():
            for t, vector in enumerate(self.stacked[name]):
                product = (vector * x).sum(dtype=torch.float64)
                total[t, self.group_of[name]] += product
        return total.flatten()

    def quadratic(self, diagonal: Mapping[str, Tensor]) -> Tensor:
        """P^T D P, (T G, T G), float64, for a diagonal D by parameter."""
        total = self.zeros(self.vectors, len(self.groups), self.vectors)
        for name, d in diagonal.items():
            wide = self.stacked[name].flatten(1).double()
            group = self.group_of[name]
            total[:, group, :, group] += (wide * d.flatten().to(wide)) @ wide.T
        return total.view(self.size, self.size)

    def zeros(self, *shape: int) -> Tensor:
        device = next(iter(self.stacked.values())).device
        return torch.zeros(*shape, len(self.groups), dtype=torch.float64, device=device)


class PerExampleProducts(PerExampleUses):
    """<gradient of v_i . outputs_i, column> for each example, direction and column."""

    joins = False  # products are linear in the uses
    by_direction = True

    def __init__(
        self,
        model: nn.Module,
        columns: Columns,
        receive: Callable[[Batch, Tensor], None],
        unsupported: str = "per_example",
    ):
        """receive(part of a batch, products (directions, B, T G))."""
        super().__init__(model, unsupported)
        self._columns = columns
        self._receive = receive
        self._of_direction: list[Tensor] = []
        self._current: Tensor | None = None

    def _begin(self, batch: Batch) -> None:
        self._of_direction = []
        self._size = batch.size

    def _begin_direction(self, number: int) -> None:
        if number == len(self._of_direction):
            self._of_direction.append(
                self._columns.zeros(self._size, self._columns.vectors)
            )
        self._current = self._of_direction[number]

    def _add_uses(self, place: Place, uses: list[Use]) -> None:
        stacked = self._columns.stacked[place.name]
        end = place.begin + place.shape.numel()
        part = stacked.flatten(1)[:, place.begin : end].unflatten(1, place.shape)
        for use in uses:
            self._put(place.name, products(use, part))

    def _add_gradient(self, name: str, gradient: Tensor) -> None:
        stacked = self._columns.stacked[name].flatten(1)
        values = stacked.double() @ gradient.flatten().double()
        self._put(name, values[None])

    def _put(self, name: str, values: Tensor) -> None:
        assert self._current is not None  # set for each direction
        self._current[:, :, self._columns.group_of[name]] += values

    def _end(self, batch: Batch) -> None:
        self._receive(batch, torch.stack(self._of_direction).flatten(2))


@dataclass
class _Span:
    """Directions, and the scores and Fisher factors as combinations of them."""

    directions: list[Tensor]
    shares: Tensor  # (B, scores and factors, directions)
    scores: int  # 0 or 1


class ExampleProducts:
    """Products of each example's gradient, and of its Fisher's factors, with columns.

    An example's Fisher in the columns' span is the sum of u u^T over its factors' u.
    """

    def __init__(
        self,
        model: nn.Module,
        columns: Columns,
        loss: Callable[[], Loss],
        receive: Callable[[Tensor, Tensor], None],
        *,
        gradient: bool = True,
        fisher: bool = True,
        estimator: str = "auto",
        seed: int = 0,
        unsupported: str = "per_example",
    ):
        """loss: returns the loss, which may be known only after a forward pass.
        receive(gradients of the negative log-likelihood (B, 0 or 1, T G), factors
        (B, Q, T G)). gradient, fisher: which of the two to compute.
        estimator: "exact", "mc" (a label drawn per example or position) or "auto": mc
        for sequences of labels only. A loss of unknown distribution gives the empirical
        Fisher."""
        self._loss = loss
        self._gives = receive
        self._gradient = gradient
        self._fisher = fisher
        self._estimator = estimator
        self._seed = seed
        self._span: _Span | None = None
        self._products = PerExampleProducts(model, columns, self._receive, unsupported)

    def add(self, outputs_of: Callable[[Batch], Tensor], batch: Batch) -> None:
        self._products.add(outputs_of, batch, self._directions)

    def _directions(self, outputs: Tensor, batch: Batch) -> Iterable[Tensor]:
        self._span = self._find_span(outputs, batch)
        return self._span.directions

    def _find_span(self, outputs: Tensor, batch: Batch) -> _Span:
        loss = self._loss()
        scores = [loss.score(outputs, batch)] if self._gradient else []
        factors = self._factors(loss, outputs, batch) if self._fisher else []
        wanted = [*scores, *factors]
        directions = loss.basis(outputs) if scores and factors else None
        if directions is None:
            shares = torch.eye(len(wanted), dtype=torch.float64, device=outputs.device)
            return _Span(wanted, shares.expand(batch.size, -1, -1), len(scores))
        basis = torch.stack([v.flatten(1).double() for v in directions], 2)
        stacked = torch.stack([v.flatten(1).double() for v in wanted], 1)
        return _Span(directions, stacked @ basis, len(scores))

    def _factors(self, loss: Loss, outputs: Tensor, batch: Batch) -> list[Tensor]:
        if not loss.has_distribution:
            return [loss.score(outputs, batch)]
        is_exact = self._estimator == "exact"
        if self._estimator == "auto":
            is_exact = loss.basis(outputs) is not None
        if is_exact:
            return list(loss.exact(outputs, batch))
        return [loss.sampled(outputs, batch, self._seed, 0)]

    def _receive(self, part: Batch, u: Tensor) -> None:
        assert self._span is not None  # set with the directions
        found = self._span.shares @ u.transpose(0, 1)  # (B, scores and factors, T G)
        self._gives(found[:, : self._span.scores], found[:, self._span.scores :])
