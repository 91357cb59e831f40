"""A model's state: changed for a while and put back, or told apart from another."""

import hashlib
import sys
import warnings
from collections.abc import Callable
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from .._C import InputError


@contextmanager
def eval_mode(model: nn.Module):
    """Eval mode, and afterwards every module's own mode."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def all_trainable(model: nn.Module):
    """Frozen parameters are trainable in the meantime."""
    frozen = [p for p in model.parameters() if not p.requires_grad]
    try:
        for p in frozen:
            p.requires_grad_(p.is_floating_point())
        yield
    finally:
        for p in frozen:
            p.requires_grad_(False)


@contextmanager
def moved(model: nn.Module, device: torch.device, home: torch.device):
    """The model is on `device` in the meantime."""
    if device.type == "meta":
        raise InputError("device must be one that computes, not meta")
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"device {device} cannot be used: {reason}") from None
    try:
        model.to(device)
        yield
    finally:
        model.to(home)


@contextmanager
def uncompiled():
    """Compiled modules run as they were written: they hide their operations."""
    if "torch._dynamo" not in sys.modules:
        yield
        return
    with torch.compiler.set_stance("force_eager"):
        yield


@contextmanager
def no_silent_checkpoints():
    """An error where torch.utils.checkpoint would lose gradients with a warning."""
    lost = "None of the inputs have requires_grad"
    with warnings.catch_warnings():
        warnings.filterwarnings("error", lost)
        try:
            yield
        except UserWarning as warning:
            if lost not in str(warning):
                raise
            raise InputError(
                "the model checkpoints a part whose inputs need no gradient, and its "
                "parameters would get none: give checkpoint use_reentrant=False"
            ) from None


def trainable_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """By their names in the model; tied ones under their first name."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def device_of(model: nn.Module) -> torch.device:
    """Where the model's first parameter is."""
    parameter = next(model.parameters(), None)
    if parameter is None:
        raise InputError("the model has no parameter")
    return parameter.device


def weights_hash(model: nn.Module) -> str:
    """Of the names and bytes of all tensors in the model's state."""
    digest = hashlib.sha256()
    for name, value in model.state_dict().items():
        if isinstance(value, Tensor):
            digest.update(name.encode())
            flat = value.detach().cpu().contiguous().flatten()
            digest.update(flat.view(torch.uint8).numpy())
    return digest.hexdigest()


def autocast_dtype(device: torch.device) -> torch.dtype | None:
    """What the caller's autocast computes in; None: there is none."""
    if not torch.is_autocast_enabled(device.type):
        return None
    return torch.get_autocast_dtype(device.type)


def code_of(function: Callable) -> str:
    """Name and hash of a function's code: another function has another one."""

    def parts(code):
        inner = [parts(x) if hasattr(x, "co_code") else x for x in code.co_consts]
        return code.co_code, code.co_names, inner

    code = getattr(function, "__code__", None)
    text = repr(parts(code)) if code is not None else ""
    name = getattr(function, "__qualname__", type(function).__qualname__)
    return f"{name} {hashlib.sha256(text.encode()).hexdigest()}"
