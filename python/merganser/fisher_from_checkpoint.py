"""The diagonal Fisher in the state of an optimizer, without data."""

from __future__ import annotations

import json
import os
import warnings
from pathlib import Path
from typing import Any

from torch import nn

from ._C import InputError
from ._checkpoint.corrections import Corrections, MeanGradient, Window, check_one_run
from ._checkpoint.find import directory_of, read_optimizer, read_trainer_state
from ._checkpoint.fisher_file import check_output, write_fisher
from ._checkpoint.loading import DAMAGE, damaged
from ._checkpoint.moments import check_betas
from ._checkpoint.names import Weights, name_moments
from ._checkpoint.state import Exponential, OptimizerState
from ._checkpoint.training_log import clipping_factor, epochs_per_step
from ._common.arguments import check_choice, check_count, check_finite
from .fisher_result import STORAGES, FisherResult

ESTIMATOR = "adam_checkpoint"


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
    storage: str = "float32",
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
            for language models; the size of a micro-batch where a Trainer adds the
            means of several, as for BERT.
        start: an earlier checkpoint of the same run: the Fisher is that of the steps
            between the two, (v_b - beta2^(b-a) v_a) / (1 - beta2^(b-a)).
        model: the model that was trained, with the same parameters frozen, where the
            optimizer numbers its parameters. None: built from config.json without
            weights (needs transformers, and PEFT for an adapter).
        betas: Adam's, where the files lack them.
        step: number of steps taken, where the files lack it.
        storage: form of the file, as in FisherResult.save.

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
    check_choice("storage", storage, STORAGES)
    check_finite("max_grad_norm", max_grad_norm)
    for name, value in (("batch_size", batch_size), ("loss_terms", loss_terms)):
        if value is not None:
            check_finite(name, value, positive=True)
    if betas is not None:
        check_betas("betas", betas)
    if step is not None:
        check_count("step", step)
    path, checkpoint = check_output(out), Path(checkpoint)
    begin = None if start is None else Path(start)
    weights = Weights(directory_of(checkpoint))
    state = _read(checkpoint, betas, step)
    window = _window(
        state, None if begin is None else _read(begin, betas, None), weights, model
    )
    log_path, log = read_trainer_state(checkpoint)
    # Also where batch_size is given: refuses a run that changed it.
    rate = epochs_per_step(
        log_path, log, {} if begin is None else read_trainer_state(begin)[1]
    )
    if batch_size is None:
        if rate is None:
            raise InputError(
                f"{log_path}: no epoch and step from which the number of examples in a "
                "step follows; pass batch_size"
            )
        batch_size = num_examples * rate
    clipping, logged = 1.0, 0
    if max_grad_norm > 0:
        clipping, logged = clipping_factor(
            log_path, log, max_grad_norm, window.decay, window.start, window.end
        )
    corrections = Corrections(
        batch_size=batch_size,
        loss_terms=loss_terms,
        max_grad_norm=max_grad_norm,
        clipping=clipping,
        clipping_steps=logged,
        mean=MeanGradient.measure(window, batch_size),
    )
    if corrections.mean is not None:
        for note in corrections.notes():
            warnings.warn(f"{checkpoint}: {note}", stacklevel=2)
    facts: dict[str, Any] = {
        "file": state.path.name,
        "optimizer": state.optimizer,
    }
    facts |= window.describe() | corrections.describe()
    facts["notes"] = state.notes + corrections.notes()
    return write_fisher(
        path,
        {name: moments.shape for name, moments in window.last.items()},
        lambda name: window.square(name) * corrections.factor,
        FisherResult(
            {},
            num_examples=num_examples,
            num_examples_used=max(1, round(window.effective_steps() * batch_size)),
            estimator=ESTIMATOR,
            labels="data",
            base_model_hash=weights.hash,
        ),
        {"optimizer_state": json.dumps(facts)},
        storage,
    )


def _window(
    last: OptimizerState,
    first: OptimizerState | None,
    weights: Weights,
    model: nn.Module | None,
) -> Window:
    assert last.step is not None and last.decay is not None
    moments = name_moments(last, weights, model)
    if first is None:
        return Window(moments, None, 0, last.step, last.decay, last.beta1)
    check_one_run(first, last)
    assert first.step is not None
    earlier = name_moments(first, weights, model)
    if earlier.keys() != moments.keys():
        raise InputError(
            f"{first.path} and {last.path} have other parameters; expected two "
            "checkpoints of one run"
        )
    return Window(moments, earlier, first.step, last.step, last.decay, last.beta1)


def _read(
    checkpoint: Path, betas: tuple[float, float] | None, step: int | None
) -> OptimizerState:
    """The optimizer's state, with what its files lack from the arguments."""
    try:
        state = read_optimizer(checkpoint)
    except InputError:
        raise
    except (*DAMAGE, AttributeError):
        raise damaged(checkpoint) from None
    if state.decay is None:
        if betas is None:
            raise InputError(f"{state.path}: Adam's betas are unknown; pass betas")
        state.beta1, state.decay = betas[0], Exponential(betas[1])
    if state.step is None:
        state.step = step or read_trainer_state(checkpoint)[1].get("global_step")
    if not state.step:
        raise InputError(f"{state.path}: the number of steps is unknown; pass step")
    return state
