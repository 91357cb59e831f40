"""Checks and facts of the Trainer that FisherCallback runs in."""

import math

from accelerate import PartialState
from torch import nn

from .._C import InputError
from .._common.sentence import is_sentence_model
from .._fisher.batches import Batch
from .._fisher.model_state import trainable_parameters
from .._fisher.sequences import count_sequences
from ..adamw_fisher import AdamWFisher


def check_whole_gradients(args, callback: str, instead: str = "") -> None:
    """Raises InputError where a process has no whole gradients, or scaled ones.

    instead: what to do where it has only a part of them.
    """
    kind = PartialState().distributed_type.value
    problems = {
        "fp16: its loss scale changes from step to step; use bf16": args.fp16,
        f"{kind}: a process has only a part of the gradients{instead}": (
            kind != "NO" and not kind.startswith("MULTI_")
        ),
        f"parallelism_config: a process has only a part of the gradients{instead}": (
            args.parallelism_config is not None
        ),
    }
    _refuse(callback, problems)


def check_trainer(args, estimator: str, window: int | None) -> None:
    """Raises InputError for settings that would make the Fisher wrong."""
    check_whole_gradients(
        args,
        "FisherCallback",
        "; train without it and call merganser.fisher_from_checkpoint",
    )
    problems = {
        "DataParallel: start one process per GPU with torchrun": args.n_gpu > 1,
        "torch_compile: it hides the model's calls": args.torch_compile,
        "window with load_best_model_at_end: the steps before the best checkpoint are "
        "collected": window is not None and args.load_best_model_at_end,
        "label_smoothing_factor: the loss is not a likelihood of the labels; use "
        "'online_mc'": estimator == "adam" and args.label_smoothing_factor != 0,
    }
    _refuse("FisherCallback", problems)


def check_model(model: nn.Module, loss: str | nn.Module) -> None:
    """Raises InputError for a model whose labels a Trainer keeps from it."""
    problem = (
        f"{type(model).__name__} of sentence-transformers without its loss, which gets "
        "the labels: pass loss, the module that the Trainer has"
    )
    is_alone = is_sentence_model(model) and isinstance(loss, str)
    _refuse("FisherCallback", {problem: is_alone})


def _refuse(callback: str, problems: dict[str, bool]) -> None:
    for problem, present in problems.items():
        if present:
            raise InputError(f"{callback} does not support {problem}")


def steps_per_epoch(args, train_dataloader) -> int:
    try:
        batches = len(train_dataloader)
    except TypeError:
        raise InputError(
            "the data loader has no length; pass window to FisherCallback, the number "
            "of steps to collect"
        ) from None
    return math.ceil(batches / args.gradient_accumulation_steps)


def count_examples(train_dataloader, remedy: str) -> int:
    try:
        return len(train_dataloader.dataset)
    except TypeError:
        raise InputError(f"the data set has no length; {remedy}") from None


def check_packing(batch: Batch, rows: int) -> None:
    """Raises InputError if the rows of a data set, of which a micro-batch has `rows`,
    are packed texts: a collator that packs rows makes one text of each."""
    count = count_sequences(batch)
    if count > max(batch.size, rows):
        raise InputError(
            f"the data set has packed texts: {rows} of its rows gave {count} texts, so "
            "its length is not the number of examples: pass num_examples to "
            "FisherCallback, the number of texts"
        )


def find_adamw_fisher(args, optimizer) -> AdamWFisher | None:
    """Returns the Trainer's optimizer if it is an AdamWFisher; stops its collecting."""
    inner = getattr(optimizer, "optimizer", optimizer)  # accelerate's wrapper
    if not isinstance(inner, AdamWFisher):
        return None
    if inner.max_grad_norm is not None and args.max_grad_norm > 0:
        raise InputError(
            "clip in one place: pass max_grad_norm to the Trainer, not to AdamWFisher"
        )
    inner.collect_fisher = False
    return inner


def trains_all(optimizer: AdamWFisher, model: nn.Module) -> bool:
    """Returns whether the optimizer has exactly the model's trainable parameters."""
    held = {p for group in optimizer.param_groups for p in group["params"]}
    return held == set(trainable_parameters(model).values())
