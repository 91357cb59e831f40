"""The Fisher of the steps that FisherCallback collects."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from .._C import InputError
from .._fisher.stored import Stored
from .mode import Mode


@dataclass(frozen=True)
class Collected:
    diagonal: dict[str, Tensor]  # means over the examples
    examples: int
    step: int  # the last of the window


def collect(mode: Mode, begin: int, end: int) -> Collected | str:
    """The Fisher of the steps from `begin` to `end`, or why they have none."""
    mode.finish()
    count = mode.examples
    if count == 0:
        return f"training ended at step {end}, but the window begins at step {begin}"
    for name, total in mode.sums.items():
        if not total.isfinite().all():
            return f"the sum of squared gradients of {name} is not finite"
    if problem := mode.problem():
        return problem
    diagonal = {name: total / count for name, total in mode.sums.items()}
    return Collected(diagonal, count, end)


def stored_in(checkpoint: Path, model: nn.Module) -> Stored | None:
    """The model's tensors in a Trainer's checkpoint; None: it does not have them."""
    if not (checkpoint / "model.safetensors").is_file():
        return None
    try:
        return Stored.of(checkpoint, model)
    except InputError as error:  # must not end a training that succeeded
        warnings.warn(f"the Fisher gets no hash of its model: {error}", stacklevel=4)
        return None


def check_resume(mode: Mode, begin: int, step: int) -> None:
    """Raises InputError for a run that resumes within the window, without its sums."""
    if step > begin and not mode.has_resumed():
        raise InputError(
            f"training resumes at step {step}, within the window of the Fisher, but "
            f"the checkpoint lacks the sums since step {begin}: resume from an earlier "
            "one, or train with AdamWFisher, which saves them"
        )
