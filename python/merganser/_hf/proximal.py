"""The proximal term of earlier tasks' Fishers in a transformers Trainer."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from transformers import TrainerState

from .._C import InputError
from .._common.arguments import check_count, check_finite
from .._common.wrappers import unwrapped
from .._posterior.inputs import Model, load_fisher
from ..fisher_result import FisherResult
from ..posterior import Posterior
from .model_card import Described
from .proximal_term import ProximalTerm, scaled_precisions, start_of
from .sum_of_means import SumOfMeans
from .trainer import check_whole_gradients, count_examples

Fisher = FisherResult | Posterior | str | os.PathLike

_MARK = "_merganser_proximal"  # attribute of the TrainerState of a run


def has_term(state: TrainerState) -> bool:
    """Returns whether the gradients of a Trainer's run contain a proximal term."""
    return hasattr(state, _MARK)


class ProximalCallback(Described):
    """Adds elastic weight consolidation to a Trainer: the proximal term

        weight / (2 N) * ||theta - theta_0||^2_H,    H = sum_s N_s F_s,

    of the mean loss over N examples. One Fisher is EWC; those of the base and of all
    earlier tasks are online EWC.

        callback = ProximalCallback("base.fisher.safetensors")
        Trainer(model, args, train_dataset=data, callbacks=[callback]).train()

    The gradient of the term, weight / N * H (theta - theta_0), is added to that of the
    loss before clipping. The minimiser is that of mean loss plus term, whatever the
    optimizer divides by, for any accumulation and number of processes (DDP): where
    Trainer sums means (of models that ignore num_items_in_batch, such as BERT), the
    term is added as often.

    With `decoupled`, the parameters are multiplied instead, as by AdamW's weight decay:
    theta -= lr * weight / N * H (theta - theta_0) before the optimizer's step, with the
    learning rate of their group. The optimizer's moments, clipping and the logged norm
    then do not contain the term. The logged loss never does; `value()` returns it.

    Memory: theta_0 and H, and without `decoupled` the gradients, from the first step to
    the end of training.

    Args:
        fisher: a FisherResult, a Posterior (H is its precision) or the path of a Fisher
            file; or a list of these, which are summed. Each must have every trainable
            parameter.
        weight: factor of the term.
        decoupled: apply the term outside of the gradient.
        start: theta_0, a module, state dict, model directory or file; None: the
            model's parameters when training begins. Needed to resume.
        num_examples: N; None: the size of the data set. For a loss that is a mean over
            tokens, pass their number.

    Raises, from Trainer.train():
        InputError: a Fisher that lacks a trainable parameter, has other names or shapes
            or belongs to a different model than the checkpoint `start` or, without it,
            the model to train; fp16, DeepSpeed or FSDP; resuming without `start`; a
            decoupled step that would overshoot.
    """

    def __init__(
        self,
        fisher: Fisher | Sequence[Fisher],
        weight: float = 1.0,
        *,
        decoupled: bool = False,
        start: Model | None = None,
        num_examples: int | None = None,
    ) -> None:
        check_finite("weight", weight)
        if num_examples is not None:
            check_count("num_examples", num_examples)
        given = [fisher] if isinstance(fisher, _KINDS) else fisher
        if not isinstance(given, Sequence) or not given:
            raise InputError(
                "fisher must be a FisherResult, a Posterior, the path of a Fisher file "
                "or a list of these"
            )
        self.fishers = [
            f if isinstance(f, Posterior) else load_fisher(f) for f in given
        ]
        self.weight = weight
        self.decoupled = decoupled
        self.start = start
        self.num_examples = num_examples
        self._term: ProximalTerm | None = None
        self._means: SumOfMeans | None = None  # during a run, unless decoupled

    def value(self) -> float:
        """The term at the model's parameters, in units of the mean loss."""
        if self._term is None:
            raise InputError("the term has a value once training has begun")
        return self._term.value()

    def card_text(self, folder: Path) -> str:
        if self._term is None:
            return ""
        form = "decoupled, " if self.decoupled else ""
        count = len(self.fishers)
        fishers = f"Fishers of {count} tasks" if count > 1 else "Fisher of a task"
        return (
            "\nThe training added elastic weight consolidation, by Merganser's "
            f"ProximalCallback: {form}with weight {self.weight:g} and the {fishers} "
            "before.\n"
        )

    def on_train_begin(self, args, state, control, model, train_dataloader, **_):
        check_whole_gradients(args, "ProximalCallback")
        model = unwrapped(model)
        if self.start is None and state.global_step > 0:
            raise InputError(
                f"training resumes at step {state.global_step}: pass start to "
                "ProximalCallback, the model that training started from"
            )
        count = self.num_examples or count_examples(
            train_dataloader,
            "pass num_examples to ProximalCallback, by which it divides the term",
        )
        precision = scaled_precisions(model, self.fishers, self.weight / count)
        start = start_of(model, self.start, self.fishers)
        self._term = ProximalTerm(model, start, precision)
        self._leave_run()
        if not self.decoupled:
            setattr(state, _MARK, True)
            self._means = SumOfMeans(model, args, self._add)

    def on_step_begin(self, args, state, control, **_):
        if self._means is not None:
            self._add(self._means.first)

    def on_substep_end(self, args, state, control, **_):
        if self._means is not None:
            self._add(self._means.later)

    def on_pre_optimizer_step(self, args, state, control, optimizer, **_):
        if self._term is not None and self.decoupled:
            self._term.shrink(optimizer)

    def on_train_end(self, args, state, control, **_):
        self._leave_run()

    def _add(self, factor: float) -> None:
        if self._term is not None and factor != 0:
            self._term.add_gradient(factor)

    def _leave_run(self) -> None:
        if self._means is not None:
            self._means.stop()
            self._means = None
        if self._term is not None:
            self._term.release()


_KINDS = (FisherResult, Posterior, str, os.PathLike)
