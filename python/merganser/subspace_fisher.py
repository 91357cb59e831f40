"""Fishers and gradients in the span of the task vectors."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from . import _C
from ._C import Error, InputError
from ._common.arguments import check_autocast, check_choice, check_count
from ._fisher.forward import Forward
from ._fisher.model_state import differentiable, tensor_hashes
from ._fisher.ranks import Ranks
from ._fisher.stored import content_hash_of
from ._fisher.subspace import Columns
from ._fisher.subspace_sums import SubspaceSums
from ._merge.states import State
from ._objective.groups import GROUPS, group_names
from ._objective.states import Carrier, Differences, Model, carrier_of
from ._objective.tasks import Task, check_examples, listed, read_tasks
from .subspace_result import SubspaceResult

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

FOLDS = 10  # as in the executable


def subspace_fisher(
    base: Model,
    experts: Sequence[Model],
    data: Sequence[Iterable],
    base_data: Iterable,
    *,
    directions: Sequence[Model] = (),
    groups: str = "block",
    points: int = 2,
    loss: str | Callable = "auto",
    limit: int | None = None,
    seed: int = 0,
    dtype: torch.dtype | None = None,
    collator: Callable | None = None,
    batch_size: int = 16,
    num_examples: Sequence[int] | None = None,
    base_num_examples: int | None = None,
    process_group: ProcessGroup | None = None,
    progress: Callable[[int, int | None, str], None] | None = None,
) -> SubspaceResult:
    """Estimates what subspace_gradient_matching needs of a base and its experts.

    With P the columns tau_tg (task vector t on group g), sums over the examples of each
    of ten parts of P^T F_i P, the exact Fisher with all off-diagonals, and of P^T g_i,
    the gradient at theta_t. From each example it takes the products <g_i, tau_tg> only,
    which the backward pass gives with one more product per layer and task vector.

    Memory: T + 3 tensors in the parameters' shapes for T experts and directions, other
    than those that the caller passes.

    Args:
        base: theta_0, a module; or any model where another one is a module. The module
            runs with the weights of each model, and has its own again afterwards.
        experts: theta_t, a list of models: modules, state dicts or paths of
            checkpoints, with the base's names and shapes.
        data: one data set per expert, as `merganser.fisher` takes them, with labels.
        base_data: the data that the base was trained on; labels are not used.
        directions: further models, such as other merges, given like the experts, whose
            displacements from the base are added to the span. They have no data; pass
            them to `merganser.merge` after the experts.
        groups: "block" (attention and MLP of each layer, embeddings, head, rest),
            "tensor" or "global".
        points: Fishers are averages over this many points along the path from each
            model to the experts' average; 1: at the model alone.
        loss: as in `merganser.fisher`. Labels are in expectation, or for sequences of
            labels sampled.
        limit: max number of examples of each data set: a random subset, as in
            `merganser.fisher`; it is held in memory.
        seed: random seed for that subset, and for sampling labels.
        dtype: bfloat16 or float16: run under autocast to this dtype.
        collator: combines a list of `batch_size` examples of a data set into a batch.
        batch_size: examples per batch, with `collator`.
        num_examples: N_t, one per expert; by default the number of its examples.
        base_num_examples: N_0, likewise.
        process_group: group of torch.distributed whose ranks share the examples of each
            data set; see `merganser.fisher`.
        progress: called after each batch with the number of examples done in this
            pass, the total (None: unknown) and a text that names model and point.

    Raises:
        InputError: arguments, models or data that do not fit; says which.
        Error: sums that are not finite; another rank of `process_group` that failed,
            with its number, or ended.

    Source: docs/method.md, "The subspace of the task vectors".
    """
    check_choice("groups", groups, GROUPS)
    check_count("points", points)
    check_autocast(dtype)
    if not isinstance(directions, Iterable) or isinstance(
        directions, str | os.PathLike | Mapping | nn.Module
    ):
        raise InputError(
            f"directions must be a list of models, not {type(directions).__name__}"
        )
    directions = list(directions)
    ranks = Ranks(process_group)
    experts = listed("experts", experts)
    carrier = Carrier(carrier_of(base, *experts))
    origin_hash = content_hash_of(base)  # while the module has its own weights
    options: dict[str, Any] = {
        "keep": False,
        "limit": limit,
        "seed": seed,
        "collator": collator,
        "batch_size": batch_size,
        "ranks": ranks,
    }
    with ranks.together(), differentiable(carrier.module), carrier:
        origin = carrier.read(base, "base")
        hashes = [content_hash_of(model) for model in experts]
        tasks = read_tasks(
            carrier,
            origin,
            experts,
            data,
            1.0,
            None,
            num_examples=num_examples,
            **options,
        )
        number = None if base_num_examples is None else [base_num_examples]
        (of_base,) = read_tasks(
            carrier,
            origin,
            [base],
            [base_data],
            1.0,
            None,
            data_names=["base_data"],
            num_examples=number,
            **options,
        )
        of_base = replace(of_base, name="base_data")
        forward = Forward(carrier.module, loss, dtype)
        for task in tasks:
            check_examples(task, task.examples.read(), forward, "the gradient")
        check_examples(of_base, of_base.examples.read(), forward, None)
        further = [
            carrier.read(model, f"directions[{i}]")
            for i, model in enumerate(directions)
        ]
        span = _Span(carrier, origin, tasks, further, forward, groups, seed, progress)
        ranks.check_same({"the task vectors": tensor_hashes(span.vectors)})
        found = [
            span.measure(task, points, model_hash, gradient=True)
            for task, model_hash in zip(tasks, hashes, strict=True)
        ]
        found += [
            _C.SubspaceLoss.direction(content_hash_of(model)) for model in directions
        ]
        of_origin = span.measure(of_base, points, origin_hash, gradient=False)
    return SubspaceResult(
        _C.SubspaceFisher(
            groups=span.groups,
            base=of_origin,
            experts=found,
            points=points,
            seed=seed,
        )
    )


class _Span:
    """The columns tau_tg, and the losses of models in their span."""

    def __init__(
        self,
        carrier: Carrier,
        origin: State,
        tasks: list[Task],
        directions: list[State],
        forward: Forward,
        groups: str,
        seed: int,
        progress: Callable | None,
    ):
        self._carrier = carrier
        self._forward = forward
        self._seed = seed
        self._progress = progress
        start = carrier.parameters_of(origin)
        models = [*(task.expert for task in tasks), *directions]
        vectors = [Differences(carrier.parameters_of(x), start) for x in models]
        names = group_names(carrier.parameters, groups)
        self._columns = Columns(carrier.parameters, vectors, names)
        share = torch.zeros(len(models), dtype=torch.float64)
        share[: len(tasks)] = 1 / len(tasks)  # the experts' average
        share = share.repeat_interleave(len(self._columns.groups))
        self._mean = {
            name: x + self._columns.combine(name, share.to(x.device))
            for name, x in start.items()
        }

    @property
    def groups(self) -> list[tuple[str, list[str]]]:
        names: list[list[str]] = [[] for _ in self._columns.groups]
        for name, group in self._columns.group_of.items():
            names[group].append(name)
        return list(zip(self._columns.groups, names, strict=True))

    @property
    def vectors(self) -> dict[str, Tensor]:
        """The task vectors, (T, ...) by parameter."""
        return self._columns.stacked

    def measure(
        self, task: Task, points: int, model_hash: str, *, gradient: bool
    ) -> _C.SubspaceLoss:
        """The sums at a task's model, its Fisher averaged over the points."""
        fisher: Tensor | float = 0.0
        at_model: Tensor | None = None
        counts: list[int] = []
        for point in range(points):
            self._move(task, point / max(points - 1, 1))
            wanted = gradient and point == 0
            sums = self._sum(task, f"{task.name}, point {point + 1}", wanted)
            gradients, fishers, counts = sums.folds
            fisher = fisher + _weight(point, points) * fishers
            if wanted:
                at_model = gradients
        folds = min(FOLDS, sum(counts))
        if folds < 2:
            raise InputError(f"{task.data_name} must have at least 2 examples")
        for x in (fisher, at_model):
            if isinstance(x, Tensor) and not bool(x.isfinite().all()):
                raise Error(f"{task.name}: the sums over its examples are not finite")
        assert isinstance(fisher, Tensor)  # points >= 1
        return _C.SubspaceLoss(
            fisher=fisher[:folds],
            gradient=None if at_model is None else at_model[:folds],
            counts=counts[:folds],
            num_examples=task.examples.num_examples,
            model_hash=model_hash,
        )

    def _move(self, task: Task, share: float) -> None:
        """Moves the module's parameters this share of the path to the average."""
        self._carrier.load(task.expert)
        if share > 0:
            own = self._carrier.parameters_of(task.expert)
            self._carrier.restore(
                {n: x.lerp(self._mean[n].to(x), share) for n, x in own.items()}
            )

    def _sum(self, task: Task, label: str, gradient: bool) -> SubspaceSums:
        sums = SubspaceSums(
            self._carrier.module,
            self._columns,
            lambda: self._forward.loss,
            gradient=gradient,
            seed=self._seed,
            folds=FOLDS,
        )

        def named(done: int, total: int | None, _: str) -> None:
            if self._progress is not None:
                self._progress(done, total, label)

        for batch in task.examples.read(named):
            sums.add(self._forward, batch, batch.before)
        sums.add_up(task.examples.add_up)
        return sums


def _weight(point: int, points: int) -> float:
    """The weight of the trapezoidal rule."""
    if points == 1:
        return 1.0
    return (0.5 if point in (0, points - 1) else 1.0) / (points - 1)
