"""The scale of a Fisher along the path from its model to a merge."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable
from dataclasses import replace

import torch
from torch import Tensor, nn

from ._C import Error, Estimate, FisherScale, InputError
from ._common.arguments import check_autocast
from ._common.wrappers import unwrapped
from ._fisher.data import Data
from ._fisher.forward import Forward
from ._fisher.model_state import all_trainable, differentiable
from ._fisher.stored import content_hash_of
from ._merge.states import State, same_values
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

    Memory: the Fisher, two tensors in the parameters' shapes (one more for a merge
    that is a path), and the examples. The path is that of all parameters, frozen ones
    included, and of floating-point buffers.

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
    with all_trainable(unwrapped(model)):  # frozen parameters may differ, too
        carrier = Carrier(model, "model")
        _check_precision(carrier)
        with differentiable(carrier.module), torch.no_grad(), carrier:
            end = carrier.read(merge, "merge")
            h = carrier.diagonal(found, "fisher", model, carrier.own, [end])
            if all(same_values(x, end[name]) for name, x in carrier.own.items()):
                raise InputError(
                    "merge has the weights of model; expected a merge whose weights "
                    "differ"
                )
            quadratic = _quadratic(h, carrier.own, end) / found.num_examples
            if not quadratic > 0:
                raise InputError("fisher is 0 along the path from model to merge")
            options = {"collator": collator, "batch_size": batch_size}
            options |= {"limit": limit, "seed": seed, "num_examples": num_examples}
            read = Data(data, carrier.module, **options)
            # Held, as another pass over the data may have another order.
            examples = Examples(read, carrier.device, keep=True)
            forward = Forward(carrier.module, loss, dtype)
            curvatures = _curvatures(carrier, end, forward, examples, progress)
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


def _check_precision(carrier: Carrier) -> None:
    """Half precision would round the path's points to multiples of weights."""
    for name, p in carrier.parameters.items():
        if p.dtype not in (torch.float32, torch.float64):
            raise InputError(
                f"expected a model in float32 or float64, got {name} in {p.dtype}: "
                "call model.float(), and pass dtype for autocast"
            )


def _quadratic(h: Tensors, begin: State, end: State) -> float:
    """D^T H D; a tensor without a Fisher does not differ."""
    return math.fsum(
        float((x.double() * (end[name].double() - begin[name]).square()).sum())
        for name, x in h.items()
    )


def _curvatures(
    carrier: Carrier,
    end: State,
    forward: Forward,
    examples: Examples,
    progress: Callable | None,
) -> Tensor:
    """Second difference of each example's loss along the path."""
    total = torch.zeros((), dtype=torch.float64)
    for number, (share, weight) in enumerate(_POINTS):
        for name, x in carrier.own.items():
            if x.is_floating_point():  # parameters and buffers
                carrier.put({name: torch.lerp(x, end[name].to(x), share)})

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
