"""The loss of a transformers model as a function of logits that others computed."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .._C import InputError


class WrappedLoss:
    """Calls a model's `loss_function` as the model does.

    Models differ in whether they pass on Trainer's `num_items_in_batch`, by which the
    loss is then divided. It is therefore measured once, on the model's own loss.
    """

    def __init__(self):
        # True if the model passes num_items_in_batch on; by whether it gets one.
        self._by_items: dict[bool, bool] = {}

    def add(
        self,
        outputs: Any,
        labels: Tensor,
        num_items: Tensor | int | None,
        model: nn.Module,
        origin: nn.Module,
        args: tuple,
        kwargs: dict,
    ) -> Any:
        """Returns `outputs` with the loss in its place.

        model: has the config and the loss function; origin(*args, **kwargs): the
        ordinary model, called once to measure.
        """
        if not hasattr(model, "loss_function") or _logits(outputs) is None:
            raise InputError(
                "with labels, a linearized model must be a transformers model that "
                "returns logits: omit labels, and compute the loss from its outputs"
            )
        by_items = self._by_items.get(num_items is not None)
        if by_items is None:
            by_items = self._measure(labels, num_items, origin, args, kwargs)
        given = num_items if by_items else None
        loss = _loss(model, _logits(outputs), labels, given)
        if isinstance(outputs, tuple):
            return (loss, *outputs)
        return type(outputs)(**{**outputs, "loss": loss})  # in the order of its fields

    @torch.no_grad()
    def _measure(self, labels, num_items, origin, args, kwargs) -> bool:
        # Doubled: the number itself may be what a mean divides by.
        doubled = {} if num_items is None else {"num_items_in_batch": 2 * num_items}
        own = origin(*args, **{**kwargs, "return_dict": True}, labels=labels, **doubled)
        if not own.loss.isfinite():
            return num_items is not None  # cannot be measured on this batch
        for by_items in (True, False):
            given = doubled.get("num_items_in_batch") if by_items else None
            loss = _loss(origin, own.logits, labels, given)
            if torch.isclose(loss.double(), own.loss.double(), rtol=1e-3):
                self._by_items[num_items is not None] = by_items
                return by_items
        raise InputError(
            f"the model's loss is {float(own.loss):.6g}, but transformers' function of "
            f"its logits and labels is {float(loss):.6g}: omit labels, and compute the "
            "loss from the outputs"
        )


def _logits(outputs: Any) -> Tensor | None:
    first = (
        outputs[0] if isinstance(outputs, tuple) else getattr(outputs, "logits", None)
    )
    return first if isinstance(first, Tensor) else None


def _loss(model: Any, logits, labels, num_items) -> Tensor:
    options = {} if num_items is None else {"num_items_in_batch": num_items}
    return model.loss_function(
        logits=logits,
        pooled_logits=logits,
        labels=labels,
        config=model.config,
        vocab_size=getattr(model.config, "vocab_size", None),
        **options,
    )
