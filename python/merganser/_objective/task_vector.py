"""The gradient of a model along its task vector, and the base's curvature there."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from .._C import (
    AlongTaskVector,
    Error,
    Estimate,
    InputError,
    TaskVectorStatistics,
)
from .._fisher.batches import Batch
from .._fisher.data import Data
from .._fisher.forward import Forward
from .._fisher.stored import content_hash_of
from .._fisher.subspace import Columns, ExampleProducts
from .groups import group_names
from .states import Carrier, Differences, Model


class TaskVectorPass:
    """Measures the slope of a carrier's model, and the curvature of its base."""

    def __init__(
        self,
        carrier: Carrier,
        base: Model,
        base_data: Data,
        forward: Forward,
        *,
        seed: int,
        unsupported: str,
    ):
        """Expects an entered carrier; `forward` runs its module."""
        self._carrier = carrier
        self._origin = carrier.read(base, "base")
        self._base_hash = content_hash_of(base)
        self._base_data = base_data
        self._forward = forward
        own, origin = map(carrier.parameters_of, (carrier.own, self._origin))
        self._columns = Columns(
            carrier.parameters,
            [Differences(own, origin)],
            group_names(carrier.parameters, "block"),
        )
        self._slopes: list[Tensor] = []  # (B, groups and their sum) of each batch
        self._curvatures: list[Tensor] = []
        options = {"seed": seed, "unsupported": unsupported}
        loss = lambda: forward.loss  # noqa: E731
        self._of_model = ExampleProducts(
            carrier.module, self._columns, loss, self._slope, fisher=False, **options
        )
        self._of_base = ExampleProducts(
            carrier.module,
            self._columns,
            loss,
            self._curvature,
            gradient=False,
            **options,
        )

    def add(self, batch: Batch) -> None:
        """Adds the slopes of a batch of the model's data."""
        if batch.labels is None:
            raise InputError("base needs the labels of data, but a batch has none")
        self._of_model.add(self._forward, batch)

    def finish(self, progress: Callable | None) -> TaskVectorStatistics:
        """Also reads the base's data, at the base's weights."""

        def named(done: int, total: int | None, _: str) -> None:
            if progress is not None:
                progress(done, total, "base")

        self._carrier.load(self._origin)
        for batch in self._base_data.read(self._carrier.device, named):
            self._of_base.add(self._forward, batch)
        self._base_data.check_read()
        own = [self._slopes, self._curvatures]
        of_ranks = self._base_data.ranks.gather([[x.cpu() for x in p] for p in own])
        slope_rows, curvature_rows = (
            torch.cat([x for parts in of_ranks for x in parts[kind]]) for kind in (0, 1)
        )
        slopes = _estimates(slope_rows, "data", "gradient")
        curvatures = _estimates(curvature_rows, "base_data", "curvature")
        *groups, total = map(AlongTaskVector, slopes, curvatures)
        return TaskVectorStatistics(
            base_model_hash=self._base_hash,
            num_examples_used=len(slope_rows),
            base_num_examples_used=len(curvature_rows),
            total=total,
            groups=list(zip(self._columns.groups, groups, strict=True)),
        )

    def _slope(self, gradients: Tensor, _: Tensor) -> None:
        self._slopes.append(_with_sum(gradients).sum(1))

    def _curvature(self, _: Tensor, factors: Tensor) -> None:
        self._curvatures.append(_with_sum(factors).square().sum(1))


def _with_sum(products: Tensor) -> Tensor:
    """Products with each group, and with the whole task vector after them."""
    return torch.cat([products, products.sum(-1, keepdim=True)], -1)


def _estimates(rows: Tensor, data: str, what: str) -> list[Estimate]:
    if len(rows) < 2:
        raise InputError(
            f"{data} must have at least 2 examples for a standard error, got 1"
        )
    if not rows.isfinite().all():
        raise Error(f"the {what} along the task vector is not finite")
    errors = rows.std(0) / math.sqrt(len(rows))
    return list(map(Estimate, rows.mean(0).tolist(), errors.tolist()))
