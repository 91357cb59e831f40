"""Examples of a refinement: targets, and the part that is held out."""

from __future__ import annotations

import torch

from .._C import InputError
from .._fisher.batches import Batch
from .._fisher.forward import Forward
from .states import Carrier
from .tasks import Task


def add_predictions(carrier: Carrier, forward: Forward, tasks: list[Task]) -> None:
    """Gives each batch the predictions of its task's expert as soft labels."""
    for task in tasks:
        carrier.load(task.expert)
        for batch in task.examples.kept:
            with torch.no_grad():
                outputs = forward(batch)
            if not forward.loss.has_distribution:
                raise InputError(
                    "targets='predictions' needs the distribution of the labels, which "
                    "is unknown if loss is a function: use 'labels'"
                )
            batch.soft = forward.loss.mean(outputs, batch)
            if not bool(batch.soft.isfinite().all()):
                raise InputError(
                    f"{task.name}: its predictions on {task.data_name} are not finite"
                )


def count_held_out(task: Task, share: float) -> int:
    """At least one example, but not all."""
    count = task.examples.used
    if count < 2:
        raise InputError(
            f"{task.data_name} has {count} example, too few to hold one out"
        )
    return min(max(1, round(share * count)), count - 1)


def split(task: Task, share: float, seed: int) -> tuple[list[Batch], list[Batch]]:
    """Batches to train on, and batches of a random share that is held out."""
    count, held = task.examples.used, count_held_out(task, share)
    generator = torch.Generator().manual_seed(seed)
    is_held = torch.zeros(count, dtype=torch.bool)
    is_held[torch.randperm(count, generator=generator)[:held]] = True
    train, held_out, begin = [], [], 0
    for batch in task.examples.kept:
        chosen = is_held[begin : begin + batch.size]
        begin += batch.size
        for batches, rows in ((train, ~chosen), (held_out, chosen)):
            if rows.any():
                batches.append(batch.take(rows.nonzero().flatten()))
    return train, held_out
