"""AdaMerging: coefficients of task vectors, adapted to unlabelled test inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ._C import Error, InputError
from ._common.arguments import check_autocast, check_choice, check_count, check_number
from ._fisher.batches import Batch
from ._fisher.forward import Forward
from ._fisher.model_state import differentiable
from ._fisher.subspace import Columns
from ._losses.classification import Classification
from ._objective.groups import GROUPS, group_names
from ._objective.states import Carrier, Differences, Model, Tensors, carrier_of
from ._objective.sums import add_backward, zeros
from ._objective.tasks import Examples, Task, read_tasks


@dataclass(eq=False)
class AdaMergingResult:
    """A merge with adapted coefficients.

    Attributes:
        state_dict: its tensors, for load_state_dict.
        coefficients: (experts, groups), in [0, 1], float64.
        groups: names of the groups of parameters.
        entropies: the objective before each step: the sum over experts of the mean
            entropy of a batch, in nats.
    """

    state_dict: dict[str, Tensor]
    coefficients: Tensor
    groups: list[str]
    entropies: list[float]

    def __repr__(self) -> str:
        experts, groups = self.coefficients.shape
        return (
            f"AdaMergingResult({experts} experts, {groups} groups, "
            f"{len(self.entropies)} steps)"
        )


def adamerging(
    base: Model,
    experts: Sequence[Model],
    data: Sequence[Iterable],
    *,
    groups: str = "tensor",
    start: float = 0.3,
    steps: int = 500,
    lr: float = 1e-3,
    loss: str = "auto",
    dtype: torch.dtype | None = None,
    collator: Callable | None = None,
    batch_size: int = 16,
    progress: Callable[[int, int | None, str], None] | None = None,
) -> AdaMergingResult:
    """Merges by coefficients that minimise the entropy of unlabelled data.

    theta = theta_0 + sum_t lambda_tg tau_tg for each group g of the parameters, with
    lambda in [0, 1] by Adam on sum_t of the mean entropy of p(y | x) over a batch of
    each task. This is test-time adaptation: the method is defined on the inputs that
    the merged model is tested on, so that its result depends on them, and its figures
    may be compared with those of methods that see no test inputs only if this is
    stated. On other unlabelled inputs it is an ordinary merge.

    A step takes a forward and a backward pass over one batch per expert. Memory:
    T + 5 tensors in the parameters' shapes for T experts, in addition to the models
    that the caller passes. Data are read again when they end, and held only if they are
    an iterator.

    Args:
        base: theta_0, a module; or any model where another one is a module. The module
            runs with the weights of the merge, and has its own again afterwards.
        experts: theta_t, a list of models: modules, state dicts or paths of
            checkpoints, with the base's names and shapes.
        data: batches of inputs of each expert's task, as `merganser.fisher` takes them;
            labels are not used. A step takes the next batch (16 examples in the paper):
            shuffle data that are sorted.
        groups: "tensor" (the paper's layer-wise form: a coefficient for each parameter
            tensor and expert), "block" (attention and MLP of each layer, embeddings,
            head, rest) or "global" (task-wise: one per expert).
        start: coefficient of every task vector before the first step, in [0, 1].
        steps: number of steps.
        lr: learning rate of Adam.
        loss: "classification", "causal_lm" or "auto", as in `merganser.fisher`: for the
            entropy the model needs class probabilities.
        dtype: bfloat16 or float16: run under autocast to this dtype.
        collator: combines a list of `batch_size` examples of `data` into a batch.
        batch_size: examples per batch, with `collator`.
        progress: called after each step with its number, `steps` and a text.

    Returns:
        An AdaMergingResult. Tensors that are not trainable parameters are the base's.

    Raises:
        InputError: arguments, models or data that do not fit; says which.
        Error: an entropy or a gradient that is not finite.

    Source: Yang et al., arXiv 2310.02575; docs/method.md, section 2.
    """
    check_choice("groups", groups, GROUPS)
    check_count("steps", steps)
    check_autocast(dtype)
    start = check_number("start", start, maximum=1.0)
    lr = check_number("lr", lr)
    carrier = Carrier(carrier_of(base, *experts))
    with differentiable(carrier.module), carrier:
        origin = carrier.read(base, "base")
        tasks = read_tasks(
            carrier,
            origin,
            experts,
            data,
            1.0,
            None,
            keep=False,
            limit=None,
            seed=0,
            collator=collator,
            batch_size=batch_size,
            num_examples=None,
        )
        carrier.load(origin)
        run = _Run(carrier, tasks, groups, Forward(carrier.module, loss, dtype))
        found = torch.full_like(run.columns.zeros(len(tasks)), start).requires_grad_()
        optimizer = torch.optim.Adam([found], lr=lr)
        entropies = []
        for step in range(1, steps + 1):
            coefficients = found.clamp(0, 1)
            entropy, gradient = run.entropy(coefficients.detach())
            optimizer.zero_grad()
            coefficients.backward(gradient)
            optimizer.step()
            entropies.append(entropy)
            if progress is not None:
                progress(step, steps, f"entropy {entropy:.6g}")
        last = found.detach().clamp(0, 1)
        run.move(last)
        return AdaMergingResult(
            carrier.state(), last.cpu(), run.columns.groups, entropies
        )


class _Run:
    """The entropy of merges, as a function of their coefficients (T, groups)."""

    def __init__(
        self, carrier: Carrier, tasks: list[Task], groups: str, forward: Forward
    ):
        """Expects a carrier with the base's weights."""
        self._parameters = carrier.parameters
        self._start = carrier.snapshot()
        self._forward = forward
        self._tasks = tasks
        self._batches = [_endless(task.examples) for task in tasks]
        self.columns = Columns(
            carrier.parameters,
            [
                Differences(carrier.parameters_of(task.expert), self._start)
                for task in tasks
            ],
            group_names(carrier.parameters, groups),
        )

    def move(self, coefficients: Tensor) -> None:
        """Gives the module the weights of the merge."""
        with torch.no_grad():
            for name, p in self._parameters.items():
                p.copy_(self._start[name] + self.columns.combine(name, coefficients))

    def entropy(self, coefficients: Tensor) -> tuple[float, Tensor]:
        """The sum over tasks of the mean entropy of their next batches, and its
        gradient (T, groups)."""
        self.move(coefficients)
        sums, total = zeros(self._parameters), 0.0
        for task, batches in zip(self._tasks, self._batches, strict=True):
            entropy = self._add(sums, next(batches), task)
            total += entropy
        gradient = self.columns.inner(sums).view_as(coefficients)
        if not gradient.isfinite().all():
            raise Error("the gradient of the entropy is not finite")
        return total, gradient

    def _add(self, sums: Tensors, batch: Batch, task: Task) -> float:
        outputs = self._forward(batch)
        loss = self._forward.loss
        if not isinstance(loss, Classification):
            raise InputError(
                "adamerging needs a model with class probabilities, loss="
                f"'classification' or 'causal_lm', not {loss.name!r}"
            )
        rows = loss.entropy(outputs, batch)
        if len(rows) == 0:
            raise InputError(
                f"{task.data_name} has a batch in which no position counts"
            )
        entropy = rows.mean()
        if not entropy.isfinite():
            raise Error(f"the entropy on {task.data_name} is not finite")
        add_backward(sums, self._parameters, entropy)
        return float(entropy.detach())


def _endless(examples: Examples) -> Iterator[Batch]:
    """Batches without labels, from the beginning again when the data end."""
    while True:
        for batch in examples.read():
            yield replace(batch, labels=None)
