"""The gradient mismatch of merged models."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ._C import InputError
from ._common.arguments import check_autocast, check_choice
from ._fisher.forward import Forward
from ._fisher.model_state import differentiable
from ._objective.groups import GROUPS
from ._objective.mismatches import Mismatches
from ._objective.norms import without_rounding
from ._objective.states import Carrier, Model, carrier_of, load_fisher
from ._objective.tasks import check_examples, read_tasks
from .merging import Fisher
from .mismatch_result import MismatchResult


def mismatch(
    base: Model,
    experts: Sequence[Model],
    data: Sequence[Iterable],
    candidates: Mapping[str, Model] | Sequence[Model],
    *,
    weights: float | Sequence[float] = 1.0,
    fishers: Sequence[Fisher] | None = None,
    base_fisher: Fisher | None = None,
    target: Model | None = None,
    groups: str = "global",
    loss: str | Callable = "auto",
    limit: int | None = None,
    seed: int = 0,
    dtype: torch.dtype | None = None,
    collator: Callable | None = None,
    batch_size: int = 16,
    num_examples: Sequence[int] | None = None,
    progress: Callable[[int, int | None, str], None] | None = None,
) -> MismatchResult:
    """Computes the gradient mismatch of merged models, from training data only.

    m(theta) = sum_t m_t, m_t = a_t [grad l_t(theta) - grad l_t(theta_t)], where l_t is
    N_t times the mean loss over the used examples of task t. The Fishers explain
    a_t H_t (theta - theta_t) of m_t; the rest is what gradient matching leaves. Reports
    2-norms, and norms in the inverse of H_0 = N_0 F_0, sqrt(sum m^2 / H_0) over the
    coordinates with H_0 > 0, with the share of |m|^2 that this leaves out. H_0 up to
    1e-12 times its mean is rounding, and counts as 0.

    Memory: T + 4 tensors in the parameters' shapes for T experts, and one for each
    Fisher, other than those that the caller passes.

    Args:
        base: theta_0, a module; or any model where another one is a module. The module
            runs with the weights of each model, and has its own again afterwards.
        experts: theta_t, a list of models: modules, state dicts or paths of
            checkpoints, with the base's names and shapes.
        data: one data set per expert, as `merganser.fisher` takes them, with labels.
        candidates: models by name, or a list of models; none is needed with a target.
        weights: a_t, one per expert or one for all; positive.
        fishers: one per expert, a FisherResult or the path of its file. A Fisher with a
            hash must be of its model's weights, if the model is a path or a module that
            transformers loaded from a directory; one that `merganser.fisher` returned
            of any model with the same names and dtypes.
        base_fisher: F_0, likewise.
        target: theta*, usually trained jointly. Adds its mismatch and the two sides of
            theta* - theta_TA = -m(theta*) / H_0, with theta_TA = theta_0 + sum_t a_t
            (theta_t - theta_0): equal where the base's loss is quadratic with the
            diagonal Hessian H_0. Needs base_fisher.
        groups: "global", "block" (attention and MLP of each layer, embeddings, head,
            rest) or "tensor": adds the total's norms by group.
        loss: as in `merganser.fisher`.
        limit: max number of examples per task: a random subset, as in
            `merganser.fisher`; it is held in memory.
        seed: random seed for that subset.
        dtype: bfloat16 or float16: run under autocast to this dtype.
        collator: combines a list of `batch_size` examples of `data` into a batch.
        batch_size: examples per batch, with `collator`.
        num_examples: N_t, one per expert; by default that of the expert's Fisher, or of
            the data without one.
        progress: called after each batch with the number of examples done, the total
            (None: unknown) and a text that names the model and the data.

    Returns:
        A MismatchResult. Its `str` is a table.

    Raises:
        InputError: arguments, models or data that do not fit, or a gradient that is not
            finite; says which.

    Source: Daheim et al., arXiv 2310.12808, section 3; docs/method.md, section 2.
    """
    check_choice("groups", groups, GROUPS)
    check_autocast(dtype)
    if target is not None and base_fisher is None:
        raise InputError("target needs base_fisher, as the identity divides by H_0")
    named = _named(candidates)
    if not named and target is None:
        raise InputError("candidates must have at least one model")
    carrier = Carrier(carrier_of(base, *experts))
    with differentiable(carrier.module), carrier:
        origin = carrier.read(base, "base")
        tasks = read_tasks(
            carrier,
            origin,
            experts,
            data,
            weights,
            fishers,
            keep=False,
            limit=limit,
            seed=seed,
            collator=collator,
            batch_size=batch_size,
            num_examples=num_examples,
        )
        models = {name: carrier.read(m, name) for name, m in named.items()}
        h0 = None
        if base_fisher is not None:
            others = [task.expert for task in tasks]
            fisher = load_fisher(base_fisher, "base_fisher")
            h0 = without_rounding(
                carrier.diagonal(fisher, "base_fisher", base, origin, others)
            )
            del fisher  # as large as the model
            if not any(bool(x.any()) for x in h0.values()):
                raise InputError("base_fisher is 0 everywhere")
        goal = None if target is None else carrier.read(target, "target")
        forward = Forward(carrier.module, loss, dtype)
        for task in tasks:
            check_examples(task, task.examples.read(), forward, "mismatch")
        run = Mismatches(carrier, origin, tasks, h0, forward, progress)
        found = {n: run.measure(n, state, groups) for n, state in models.items()}
        at_target, identity = None, None
        if goal is not None:
            at_target, identity = run.measure_target(goal, groups)
        zero = run.count_without_h0()
    return MismatchResult(
        found,
        sum(p.numel() for p in carrier.parameters.values()),
        {task.name: task.examples.used for task in tasks},
        zero,
        identity,
        at_target,
    )


def _named(candidates: Any) -> dict[str, Model]:
    """Candidates by name."""
    if isinstance(candidates, Mapping):
        if any(isinstance(value, Tensor) for value in candidates.values()):
            raise InputError(
                "candidates must be models by name or a list, not one model"
            )
        named = dict(candidates)
    elif isinstance(candidates, list | tuple):
        named = {f"candidates[{i}]": model for i, model in enumerate(candidates)}
    else:
        given = type(candidates).__name__
        raise InputError(f"candidates must be models by name or a list, not {given}")
    return named
