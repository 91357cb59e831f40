"""RegMean with the inputs that layers have in the merged model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from ._common.arguments import check_autocast
from ._fisher.gram_sums import GramSums
from ._fisher.model_state import differentiable
from ._merge.states import State
from ._objective.layers import Layer, layers_in_order
from ._objective.states import Carrier, Model, carrier_of
from ._objective.tasks import Task, read_tasks
from .gram import GramResult
from .merging import merge


def regmean_plus_plus(
    experts: Sequence[Model],
    data: Sequence[Iterable],
    *,
    weights: float | Sequence[float] = 1.0,
    off_diagonal: float = 0.9,
    ridge: float = 1e-4,
    limit: int | None = None,
    seed: int = 0,
    dtype: torch.dtype | None = None,
    collator: Callable | None = None,
    batch_size: int = 16,
    num_examples: Sequence[int] | None = None,
    progress: Callable[[int, int | None, str], None] | None = None,
) -> dict[str, Tensor]:
    """Merges models layer by layer with RegMean++.

    W = (sum_t w_t W_t G_t) (sum_t w_t G_t)^-1 for each linear layer, as `regmean`, with
    G_t of the inputs that expert t's layer has after the layers before it, which have
    already been merged; all other tensors are sum_t w_t theta_t / sum_t w_t. A layer is
    the tensors whose names agree up to the first number (encoder.layer.3), or without a
    number those of one module; layers are merged in the order in which a forward pass
    uses them. Within its layer, an input passes through the expert's own weights.

    Takes one forward pass over each expert's data for every layer with linear weights,
    in eval mode. Memory: two models and the Gram matrices of one layer per expert, in
    addition to the models that the caller passes; data are read again for every pass,
    and held only if they are an iterator or limited.

    Args:
        experts: theta_t, a list of models with the same names and shapes: modules,
            state dicts or paths of checkpoints. The first module runs with the weights
            of each model, and has its own again afterwards.
        data: one data set per expert, as `merganser.gram` takes them; labels are not
            used.
        weights: w_t, one per expert or one for all; positive.
        off_diagonal: factor of the Gram matrices off the diagonal, in [0, 1].
        ridge: constant added to the diagonals of the Gram matrices, as a fraction of
            their mean.
        limit: max number of examples per expert: a random subset, as in
            `merganser.fisher`; it is held in memory.
        seed: random seed for that subset.
        dtype: bfloat16 or float16: run under autocast to this dtype.
        collator: combines a list of `batch_size` examples of `data` into a batch.
        batch_size: examples per batch, with `collator`.
        num_examples: N_t, one per expert, by which its Gram matrices are scaled; by
            default the number of examples in its data.
        progress: called after each batch with the number of examples done in this pass,
            the total (None: unknown) and a text that names layer and expert.

    Returns:
        A state dict for load_state_dict, with the first module's names and dtypes.

    Raises:
        InputError: arguments, models or data that do not fit; says which.
        Error: a Gram matrix that is not finite; names the parameter.

    Source: Nguyen et al., arXiv 2508.03121; docs/method.md, section 2.
    """
    check_autocast(dtype)
    carrier = Carrier(carrier_of(*experts, label="an expert"), "the first module")
    with differentiable(carrier.module), torch.no_grad(), carrier:
        tasks = read_tasks(
            carrier,
            {},
            experts,
            data,
            weights,
            None,
            keep=False,
            limit=limit,
            seed=seed,
            collator=collator,
            batch_size=batch_size,
            num_examples=num_examples,
        )
        carrier.load(tasks[0].expert)
        firsts = [batch for task in tasks for batch in islice(task.examples.read(), 1)]
        layers = layers_in_order(carrier.module, firsts)
        merged: State = {}
        for layer in layers:
            states = [{n: task.expert[n] for n in layer.tensors} for task in tasks]
            options: dict[str, Any] = {"method": "linear"}
            if layer.linear:
                grams = [
                    _gram(carrier, task, layer, merged, dtype, progress)
                    for task in tasks
                ]
                parameters = {"off_diagonal": off_diagonal, "ridge": ridge}
                options = {"method": "regmean", "grams": _common(grams)}
                options["parameters"] = parameters
            weights = [task.weight for task in tasks]
            merged |= merge(None, states, weights=weights, **options)
        carrier.put(merged)
        return carrier.state()


def _gram(
    carrier: Carrier,
    task: Task,
    layer: Layer,
    merged: State,
    dtype: torch.dtype | None,
    progress: Callable | None,
) -> GramResult:
    """Gram matrices of a layer's inputs in the expert, with the merged tensors."""

    def named(done: int, total: int | None, _: str) -> None:
        if progress is not None:
            progress(done, total, f"{layer.name}, {task.name}")

    carrier.load(task.expert)
    carrier.put(merged)
    sums = GramSums(carrier.module, dtype, layer.linear)
    for batch in task.examples.read(named):
        sums.add(batch)
    examples = task.examples
    return GramResult(sums.means(examples.used), examples.num_examples, examples.used)


def _common(grams: list[GramResult]) -> list[GramResult]:
    """Leaves out matrices that another expert lacks, as of a head for one task."""
    names = set(grams[0]).intersection(*grams[1:])
    return [replace(g, matrices={name: g[name] for name in names}) for g in grams]
