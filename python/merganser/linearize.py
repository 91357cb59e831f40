"""Models linearized in their parameters, for fine-tuning in the tangent space."""

from __future__ import annotations

import copy
import functools
import inspect
import re
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.func import functional_call, jvp
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._pytree import tree_flatten, tree_unflatten

from ._C import InputError
from ._common.wrappers import unwrapped
from ._losses.wrapped import WrappedLoss

Model = TypeVar("Model", bound=nn.Module)


def linearize(model: Model) -> Model:
    """Returns the first-order model of `model` at its parameters theta_0,

        f(x; theta_0) + J(x; theta_0) (theta - theta_0),

    a module with the class name, forward signature, outputs and parameter names of
    `model`, whose trainable parameters are theta, at first theta_0. Its state dict and
    `save_pretrained` are those of an ordinary model: every merge takes them. It trains
    in transformers' Trainer, also with bf16, accumulation and DDP.

    Every floating-point tensor of the output is linearized. The loss of a transformers
    model is the model's own function of the linearized logits. Parameters that are
    frozen here, and buffers, are constants. A linearization needs a deterministic
    function: theta_0's model runs in eval mode, so there is no dropout, and attention
    by torch's unfused formula, since the fused kernels have no forward-mode
    derivatives. Memory: theta_0 and, during a step, theta - theta_0 are copies of the
    parameters in addition to theta.

    Args:
        model: any module; it is copied and stays unchanged, so that its memory is
            needed as long as the caller refers to it. Wrappers (torch.compile,
            DataParallel, DDP) are left out.

    Raises:
        InputError: no trainable parameter, a model that is linearized already; from the
            forward pass: an operation without forward-mode derivatives, a key-value
            cache, a loss that is not one of transformers' functions.

    Source: Ortiz-Jimenez et al., arXiv 2305.12827; docs/method.md, section 5.
    """
    if not isinstance(model, nn.Module):
        raise InputError(f"model must be a module, not {type(model).__name__}")
    model = unwrapped(model)
    if isinstance(model, Linearized):
        raise InputError("model is linearized already: load it as an ordinary model")
    if "forward" in vars(model):
        raise InputError(
            "model.forward was replaced on the instance, which hides the model's own: "
            "linearize the model before it is prepared for training"
        )
    if not any(p.requires_grad for p in model.parameters()):
        raise InputError("the model has no trainable parameter")
    linear = copy.deepcopy(model)
    linear.__class__ = _linearized_class(type(model))
    # Not an attribute: nn.Module would register it, and its names in the state dict.
    vars(linear)["_origin"] = copy.deepcopy(model).eval()
    vars(linear)["_wrapped_loss"] = WrappedLoss()
    return linear


class Linearized(nn.Module):
    """Base class of linearized models, before the model's own class."""

    _origin: nn.Module  # the model at theta_0
    _wrapped_loss: WrappedLoss

    def _apply(self, fn, recurse=True):
        self._origin._apply(fn, recurse)  # .to(device), .double(), ...
        return super()._apply(fn, recurse)

    def _forward(self, args: tuple, kwargs: dict) -> Any:
        signature = inspect.signature(type(self._origin).forward)
        bound = signature.bind(self._origin, *args, **kwargs)
        labels = bound.arguments.pop("labels", None)
        args, kwargs = bound.args[1:], dict(bound.kwargs)
        num_items = kwargs.pop("num_items_in_batch", None)
        if "use_cache" in signature.parameters:
            if kwargs.get("use_cache") or kwargs.get("past_key_values") is not None:
                raise InputError(
                    "a linearized model has no key-value cache: pass use_cache=False"
                )
            kwargs["use_cache"] = False
        outputs = self._linearized(args, kwargs)
        if labels is None:
            return outputs
        return self._wrapped_loss.add(
            outputs, labels, num_items, self, self._origin, args, kwargs
        )

    def _linearized(self, args: tuple, kwargs: dict) -> Any:
        theta = dict(self.named_parameters())
        origin = dict(self._origin.named_parameters())
        start = {n: p.detach() for n, p in origin.items() if p.requires_grad}
        # Frozen parameters and buffers, which load_state_dict may have changed.
        constants = dict(self.named_buffers()) | {
            n: theta[n] for n in origin if n not in start
        }
        form: list[Any] = []  # of the outputs: tree, and leaves with None for tensors

        def call(parameters: dict[str, Tensor]) -> list[Tensor]:
            outputs = functional_call(
                self._origin, constants | parameters, args, kwargs
            )
            leaves, tree = tree_flatten(outputs)
            form[:] = tree, [None if isinstance(x, Tensor) else x for x in leaves]
            return [x for x in leaves if isinstance(x, Tensor)]

        displacement = {n: theta[n] - p for n, p in start.items()}
        with _forward_differentiable():
            values, slopes = jvp(call, (start,), (displacement,))  # type: ignore[misc]
        tree, leaves = form
        linear = (
            v + s if v.is_floating_point() else v
            for v, s in zip(values, slopes, strict=True)
        )
        return tree_unflatten([next(linear) if x is None else x for x in leaves], tree)


@functools.cache
def _linearized_class(kind: type[nn.Module]) -> type[nn.Module]:
    @functools.wraps(kind.forward)  # keeps the signature, which Trainer reads
    def forward(self, *args, **kwargs):
        return self._forward(args, kwargs)

    # The same name: transformers writes it to config.json.
    names = {"__module__": kind.__module__, "__qualname__": kind.__qualname__}
    return type(kind.__name__, (Linearized, kind), {"forward": forward, **names})


@contextmanager
def _forward_differentiable():
    """Selects operations that have forward-mode derivatives."""
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    except NotImplementedError as error:
        if not re.search("forward (mode )?AD", str(error)):
            raise
        reason = str(error).partition(" because")[0].rstrip(".")
        raise InputError(
            f"the model cannot be linearized: {reason}; a transformers model may need "
            "attn_implementation='eager'"
        ) from None
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
