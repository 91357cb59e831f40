"""The diagonal Fisher in the state of an optimizer, without data."""

from __future__ import annotations

import json
import math
import os
import warnings
from pathlib import Path
from typing import Any

from torch import nn

from ._arguments import check_count
from ._C import InputError
from ._checkpoint.corrections import MeanGradient, Window, check_one_run, to_float32
from ._checkpoint.find import directory_of, read_optimizer, read_trainer_state
from ._checkpoint.fisher_file import check_output, write_fisher
from ._checkpoint.names import Weights, name_moments
from ._checkpoint.state import Exponential, OptimizerState
from ._checkpoint.training_log import clipping_factor, epochs_per_step
from .fisher_result import FisherResult

ESTIMATOR = "adam_checkpoint"
# Share of the mean gradient above which most of each value is not the Fisher's.
_LARGE_SHARE = 0.5


def fisher_from_checkpoint(
    checkpoint: str | os.PathLike,
    out: str | os.PathLike,
    *,
    num_examples: int,
    max_grad_norm: float,
    batch_size: float | None = None,
    loss_terms: float | None = None,
    start: str | os.PathLike | None = None,
    model: nn.Module | None = None,
    betas: tuple[float, float] | None = None,
    step: int | None = None,
) -> FisherResult:
    """Writes the empirical Fisher that an optimizer's squared gradients hold.

    Adam's v is a moving average of the squared gradient of a step's mean loss, over
    about 1 / (1 - beta2) steps. It is corrected for its start at 0, for the number of
    examples in a step, for clipping and, in scale, for the mean gradient; the file's
    metadata state each factor under `optimizer_state`. Reads one tensor at a time.
    Files are never executed: torch.load(weights_only=True), no training_args.bin.

    Args:
        checkpoint: a Trainer's checkpoint directory (optimizer.pt; optimizer.bin or a
            directory of torch.distributed.checkpoint from FSDP), DeepSpeed's (shards of
            ZeRO 1 to 3, or universal), a directory of torch.distributed.checkpoint,
            exp_avg_sq.safetensors by parameter name, or an optimizer's file. Of a PEFT
            checkpoint, the adapter's Fisher. Optimizers: Adam and AdamW; Adafactor, and
            8-bit Adam of bitsandbytes, which keep the squares in a compact form.
        out: the Fisher file, .safetensors.
        num_examples: N of the data set, by which a merge scales the mean.
        max_grad_norm: norm that training clipped gradients to (a Trainer's default is
            1.0); 0: no clipping. Undone with `grad_norm` in trainer_state.json.
        batch_size: number n of examples of a step, over all micro-batches and
            processes. None: from trainer_state.json.
        loss_terms: divisor of the sum of the examples' negative log-likelihoods in a
            step's loss, if not batch_size: the mean number of target tokens of a step,
            for language models.
        start: an earlier checkpoint of the same run: the Fisher is that of the steps
            between the two, (v_b - beta2^(b-a) v_a) / (1 - beta2^(b-a)).
        model: the model that was trained, with the same parameters frozen, where the
            optimizer numbers its parameters. None: built from config.json without
            weights (needs transformers, and PEFT for an adapter).
        betas: Adam's, where the files lack them.
        step: number of steps taken, where the files lack it.

    Returns:
        The Fisher in `out`, with estimator "adam_checkpoint". Values are read from the
        file as they are used.

    Raises:
        InputError: no state, another model's, moving averages in half precision, an
            optimizer without squares of gradients, damaged files, files with objects
            other than tensors, a run resumed with another batch size. Nothing is
            written.
        Error: a Fisher that is not finite.

    Warns:
        If the mean gradient has more than half of the squares: the batch is too large
        for them to be a Fisher.

    Source: docs/method.md, section 3; Li et al., "Fishers for free?".
    """
    check_count("num_examples", num_examples)
    _check_positive("max_grad_norm", max_grad_norm, zero=True)
    _check_positive("batch_size", batch_size)
    _check_positive("loss_terms", loss_terms)
    path = check_output(out)
    checkpoint = Path(checkpoint)
    weights = Weights(directory_of(checkpoint))
    state = _read(checkpoint, betas, step)
    earlier = None if start is None else _read(Path(start), betas, None)
    if earlier is not None:
        check_one_run(earlier, state)
    assert state.step is not None and state.decay is not None
    last = name_moments(state, weights, model)
    first = None if earlier is None else name_moments(earlier, weights, model)
    if first is not None and first.keys() != last.keys():
        raise InputError(
            f"{earlier} and {state.path} have other parameters; expected two "
            "checkpoints of one run"
        )
    begin = 0 if earlier is None or earlier.step is None else earlier.step
    window = Window(last, first, begin, state.step, state.decay, state.beta1)

    log_path = directory_of(checkpoint) / "trainer_state.json"
    log = read_trainer_state(checkpoint)
    rate = epochs_per_step(
        log_path, log, {} if start is None else read_trainer_state(Path(start))
    )
    notes = list(state.notes)
    if batch_size is None:
        if rate is None:
            raise InputError(
                f"{log_path}: no epoch and step from which the number of examples in a "
                "step follows; pass batch_size"
            )
        batch_size = num_examples * rate
    n = float(batch_size)
    examples = n if loss_terms is None else loss_terms**2 / n
    clipping, logged = 1.0, 0
    if max_grad_norm > 0:
        clipping, logged = clipping_factor(
            log_path, log, max_grad_norm, window.decay, window.start, window.end
        )
    mean = MeanGradient.measure(window, n)
    if mean is None:
        notes.append("the share of the mean gradient is unknown and not corrected")
    elif mean.share > _LARGE_SHARE:
        notes.append(
            f"the mean gradient has {mean.share:.0%} of the squares: the steps of "
            f"{n:.6g} examples are too large for them to be a Fisher; use "
            "merganser.fisher"
        )
        warnings.warn(f"{checkpoint}: {notes[-1]}", stacklevel=2)
    factor = examples * clipping * (1.0 if mean is None else mean.factor)
    facts: dict[str, Any] = {
        "file": state.path.name,
        "optimizer": state.optimizer,
        "steps": [window.start, window.end],
        "bias_correction": 1 / window.weight,
        "batch_size": n,
        "loss_terms": loss_terms,
        "examples_factor": examples,
        "max_grad_norm": max_grad_norm,
        "clipping_factor": clipping,
        "clipping_steps_logged": logged,
        "mean_gradient_share": None if mean is None else mean.share,
        "mean_gradient_factor": None if mean is None else mean.factor,
        "notes": notes,
    }
    if isinstance(window.decay, Exponential):
        facts["beta2"] = window.decay.beta
    return write_fisher(
        path,
        {name: moments.shape for name, moments in last.items()},
        lambda name: to_float32(window.square(name), factor),
        FisherResult(
            {},
            num_examples=num_examples,
            num_examples_used=max(1, round(window.effective_steps() * n)),
            estimator=ESTIMATOR,
            labels="data",
            base_model_hash=weights.hash,
        ),
        {"optimizer_state": json.dumps(facts)},
    )


def _read(
    checkpoint: Path, betas: tuple[float, float] | None, step: int | None
) -> OptimizerState:
    """The optimizer's state, with what its files lack from the arguments."""
    state = read_optimizer(checkpoint)
    if state.decay is None:
        if betas is None:
            raise InputError(f"{state.path}: Adam's betas are unknown; pass betas")
        state.beta1, state.decay = betas[0], Exponential(betas[1])
    if state.step is None:
        state.step = step or read_trainer_state(checkpoint).get("global_step")
    if not state.step:
        raise InputError(f"{state.path}: the number of steps is unknown; pass step")
    return state


def _check_positive(name: str, value: float | None, zero: bool = False) -> None:
    if value is None:
        return
    if not (math.isfinite(value) and (value > 0 or zero and value == 0)):
        kind = "not negative" if zero else "positive"
        raise InputError(f"{name} must be a finite number, {kind}, not {value!r}")
