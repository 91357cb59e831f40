"""Facts of a training in trainer_state.json: examples per step, norms of gradients."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .._C import InputError
from .state import Decay

_ROUNDING = 0.006  # of epochs in logs of older versions

Log = Mapping[str, Any]  # of trainer_state.json; empty: unknown


def epochs_per_step(path: Path, log: Log, start: Log) -> float | None:
    """Epochs of a step since the checkpoint `start`; None: unknown, as for data without
    a length, whose epochs a Trainer makes up.

    Refuses a run that was resumed with another number of examples per step: the logged
    epochs are then not proportional to the steps.
    """
    first, begin = start.get("global_step", 0), start.get("epoch") or 0.0
    last, end = log.get("global_step", 0), log.get("epoch") or 0.0
    if last <= first or end <= begin or log.get("num_train_epochs") == sys.maxsize:
        return None
    rate = (end - begin) / (last - first)
    for entry in log.get("log_history", []):
        step, epoch = entry.get("step", 0), entry.get("epoch")
        expected = begin + rate * (step - first)
        # Allows for one step, as an epoch may end with a step of fewer micro-batches.
        limit = _ROUNDING + rate + 0.01 * (expected - begin)
        if epoch is not None and step > first and abs(epoch - expected) > limit:
            raise InputError(
                f"{path}: step {step} was at epoch {epoch:.6g}, but {expected:.6g} "
                f"follows from epoch {end:.6g} at step {last}: the run was resumed "
                "with another batch size; pass as start a checkpoint from after that"
            )
    return rate


def clipping_factor(
    path: Path, log: Log, norm: float, decay: Decay, start: int, end: int
) -> tuple[float, int]:
    """What clipping to `norm` divided the average of squares by, and the number of
    logged steps that say so.

    The squares of a step with the gradient norm g add up to min(g, norm)^2 instead of
    g^2, so that the sums over all parameters are off by the ratio of the two averages.
    """
    weights = decay.weights(start, end)
    before, after, steps = 0.0, 0.0, 0
    for entry in log.get("log_history", []):
        g, step = entry.get("grad_norm"), entry.get("step", 0)
        if g is not None and start < step <= end and math.isfinite(float(g)):
            weight = float(weights[step - start - 1])
            before += weight * float(g) ** 2
            after += weight * min(float(g), norm) ** 2
            steps += 1
    if steps == 0 or after == 0:
        raise InputError(
            f"{path}: no grad_norm of the steps {start + 1} to {end}, from which "
            "clipping is undone; pass max_grad_norm=0 for a Fisher of the clipped "
            "gradients"
        )
    return before / after, steps
