"""Losses by name, and the choice of one for a model and its data."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from .._C import InputError
from .._fisher.batches import Batch
from .._fisher.closeness import close
from .classification import Classification
from .loss import Loss, shape_text
from .values import Multilabel, Regression

# Number of examples whose losses are compared.
_FEW = 3


class Given(Loss):
    """A user's function of the model's output and the labels, which returns (B,)
    negative log-likelihoods. Its distribution is unknown, so labels cannot be drawn."""

    name = "callable"
    has_distribution = False

    def __init__(self, function: Callable):
        self._function = function
        self._is_checked = False  # on a batch of several examples

    def outputs(self, raw, batch):
        losses = self._function(raw, batch.labels)
        if not isinstance(losses, Tensor) or losses.shape != (batch.size,):
            given = (
                tuple(losses.shape)
                if isinstance(losses, Tensor)
                else type(losses).__name__
            )
            raise InputError(
                "loss(output, labels) must return one negative log-likelihood per "
                f"example, a tensor ({batch.size},), not {given}"
            )
        if batch.size > 1 and not self._is_checked:
            self._check_examples(raw, batch, losses)
        return losses

    @torch.no_grad()
    def _check_examples(self, raw, batch: Batch, losses: Tensor) -> None:
        """Raises InputError where examples have other losses than alone, as with
        in-batch negatives: the gradient of such a loss is no sum over examples."""
        rows = Batch((raw,), {}, batch.labels, batch.indices, batch.size)
        for i in range(min(_FEW, batch.size)):
            single = rows.rows(i, i + 1)
            alone = self._function(*single.args, single.labels)
            if not close(alone, losses[i : i + 1]):
                raise InputError(
                    f"loss(output, labels) of example {i} is {float(losses[i]):.6g} in "
                    f"its batch and {float(alone) + 0.0:.6g} alone: a Fisher needs a "
                    "loss of single examples, so a loss with in-batch negatives must "
                    "get each example's negatives with it"
                )
        self._is_checked = True

    def given(self, outputs, batch):
        return torch.ones_like(outputs, requires_grad=False)

    def score(self, outputs, batch):
        return torch.ones_like(outputs, requires_grad=False)

    def nll(self, outputs, batch):
        return outputs.double()


_NAMED = {
    "classification": Classification,
    "multilabel": Multilabel,
    "regression": Regression,
    "causal_lm": lambda: Classification(shift=True),
}
LOSSES = ("auto", *_NAMED)

_PROBLEM_TYPES = {  # transformers' names
    "regression": "regression",
    "single_label_classification": "classification",
    "multi_label_classification": "multilabel",
}


def find_loss(loss: str | Callable, model: nn.Module) -> Loss | None:
    """The loss of a name or function; None for "auto" if the model does not determine
    it, so that `guess_loss` needs a batch."""
    if callable(loss):
        return Given(loss)
    if loss in _NAMED:
        return _NAMED[loss]()
    if loss != "auto":
        raise InputError(
            f"loss must be one of {', '.join(LOSSES)} or a function, not {loss!r}"
        )
    config = getattr(model, "config", None)
    problem = getattr(config, "problem_type", None)
    if problem in _PROBLEM_TYPES:
        return find_loss(_PROBLEM_TYPES[problem], model)
    if type(model).__name__.endswith(("ForCausalLM", "LMHeadModel")):
        return find_loss("causal_lm", model)
    if type(model).__name__.endswith(("ForTokenClassification", "ForMaskedLM")):
        return find_loss("classification", model)
    return None


def guess_loss(raw, batch: Batch) -> Loss:
    """Infers the loss from the outputs' shape and the labels' type."""
    outputs = Loss().outputs(raw, batch)
    labels = batch.labels
    if outputs.dim() == 1 or (outputs.dim() == 2 and outputs.shape[1] == 1):
        if labels is not None and not bool(((labels == 0) | (labels == 1)).all()):
            return Regression()
        raise InputError(
            "loss='auto' cannot tell a logit from a real value: pass loss='multilabel' "
            "for one logit of labels 0 and 1, or loss='regression'"
        )
    if outputs.dim() == 2:
        if labels is None or not labels.dtype.is_floating_point:
            return Classification()
        if labels.shape != outputs.shape:
            return Classification()
        if bool(((labels == 0) | (labels == 1)).all()):
            return Multilabel()
    raise InputError(
        f"loss='auto' cannot interpret outputs {shape_text(outputs)}: pass loss as "
        f"one of {', '.join(_NAMED)} or as a function"
    )
