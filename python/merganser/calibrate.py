"""The scale of a Fisher along the path from its model to a merge."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

import torch
from torch import Tensor, nn

from ._C import Error, Estimate, FisherScale, InputError
from ._common.arguments import check_autocast
from ._fisher.data import Data
from ._fisher.forward import Forward
from ._fisher.model_state import differentiable
from ._fisher.stored import content_hash_of
from ._objective.states import Carrier, Model, Tensors, load_fisher
from ._objective.tasks import Examples
from .fisher_result import FisherResult

# Points of the path and their weights in the second difference of the loss.
_POINTS = ((0.0, 4.0), (0.5, -8.0), (1.0, 4.0))


def calibrate(
    fisher: FisherResult | str | os.PathLike,
    model: nn.Module,
    merge: Model,
    data: Iterable,
    *,
    loss: str | Callable = "auto",
    limit: int | None = None,
    seed: int = 0,
    dtype: torch.dtype | None = None,
    collator: Callable | None = None,
    batch_size: int = 16,
    num_examples: int | None = None,
    progress: Callable[[int, int | None, str], None] | None = None,
) -> FisherResult:
    """Measures the factor by which a Fisher's quadratic is off along a merge's path.

    c = 4 [l(theta) - 2 l(theta + D/2) + l(theta + D)] / (D^T F D) with D = merge -
    theta and l the mean loss of the data: three forward passes, no gradient. As
    `merganser calibrate`, for any module; `fisher_scale: auto` in recipes reads it.

    Memory: three tensors in the parameters' shapes.

    Args:
        fisher: of the model, a FisherResult or the path of its file.
        model: theta, a module; it has its own weights again afterwards.
        merge: a module, state dict or path of a checkpoint with the model's names and
            shapes.
        data: the model's data, with labels, as `merganser.fisher` takes them.
        loss, limit, seed, dtype, collator, batch_size: as in `merganser.fisher`.
        num_examples: size of the data set, where `limit` needs it.
        progress: called after each batch with the number of examples done in the three
            passes, the total (None: unknown) and an empty text.

    Returns:
        A copy of the Fisher with `scale`: c, its standard error, which is that of the
        loss, the hash of the merge (empty: unknown) and the number of examples.

    Raises:
        InputError: arguments, models or data that do not fit; a merge with the model's
            weights; a Fisher that is 0 along the path; a curvature that is not
            positive. Error: a loss that is not finite.

    Source: docs/method.md, "The scale of a Fisher".
    """
    check_autocast(dtype)
    found = load_fisher(fisher, "fisher")
    carrier = Carrier(model, "model")
    with differentiable(carrier.module), torch.no_grad(), carrier:
        end = carrier.read(merge, "merge")
        h = carrier.diagonal(found, "fisher", model, carrier.own, [end])
        begin, path = carrier.snapshot(), {}
        for name, x in carrier.parameters_of(end).items():
            path[name] = x - begin[name]
        if not any(bool(d.any()) for d in path.values()):
            raise InputError(
                "merge has the weights of model; expected a merge whose weights differ"
            )
        quadratic = _quadratic(h, path) / found.num_examples
        if not quadratic > 0:
            raise InputError("fisher is 0 along the path from model to merge")
        options = {"collator": collator, "batch_size": batch_size}
        options |= {"limit": limit, "seed": seed, "num_examples": num_examples}
        read = Data(data, carrier.module, **options)
        hold = limit is not None or isinstance(data, Iterator)
        curvatures = _curvatures(
            carrier,
            begin,
            path,
            Forward(carrier.module, loss, dtype),
            Examples(read, carrier.device, hold),
            progress,
        )
    if len(curvatures) < 2:
        raise InputError(
            "data must have at least 2 examples for a standard error, got 1"
        )
    mean = float(curvatures.mean())
    error = float(curvatures.std()) / math.sqrt(len(curvatures))
    if not math.isfinite(mean):
        raise Error("the loss along the path from model to merge is not finite")
    if mean <= 0:
        raise InputError(
            "expected a loss of positive curvature along the path from model to merge, "
            f"got {mean:.3g} ± {error:.3g}; use more examples or another merge"
        )
    return replace(
        found,
        scale=FisherScale(
            scale=Estimate(mean / quadratic, error / quadratic),
            merge_hash=content_hash_of(merge),
            num_examples_used=len(curvatures),
        ),
    )


def _quadratic(h: Tensors, path: Tensors) -> float:
    """D^T H D; a tensor without a Fisher does not differ."""
    return math.fsum(
        float((x.double() * path[name].double().square()).sum())
        for name, x in h.items()
    )


def _curvatures(
    carrier: Carrier,
    begin: Tensors,
    path: Tensors,
    forward: Forward,
    examples: Examples,
    progress: Callable | None,
) -> Tensor:
    """Second difference of each example's loss along the path."""
    total = torch.zeros((), dtype=torch.float64)
    for number, (share, weight) in enumerate(_POINTS):
        carrier.restore({name: x + share * path[name] for name, x in begin.items()})

        def count(done: int, expected: int | None, _: str, number=number) -> None:
            if progress is not None:
                every = None if expected is None else len(_POINTS) * expected
                progress(number * (expected or 0) + done, every, "")

        losses = []
        for batch in examples.read(count):
            if batch.labels is None:
                raise InputError("data has no labels, which calibrate needs")
            outputs = forward(batch)  # determines the loss
            losses.append(forward.loss.nll(outputs, batch).cpu())
        total = total + weight * torch.cat(losses)
    return total
