"""A model's state: changed temporarily and restored, or fingerprinted."""

import hashlib
import sys
import warnings
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import keystr, tree_flatten_with_path

from .._C import InputError
from .._common.wrappers import parameters_inside, state_inside, whole
from .batches import Batch


@contextmanager
def eval_mode(model: nn.Module):
    """Switches to eval mode; restores every module's mode afterwards.

    Without the fused attention of torch's encoder layers, which runs in eval mode only
    where no gradient is needed: it has other outputs at padded places than training.
    """
    modes = [(module, module.training) for module in model.modules()]
    fused = torch.backends.mha.get_fastpath_enabled()
    model.eval()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
        for module, training in modes:
            module.training = training


@contextmanager
def differentiable(model: nn.Module):
    """Runs the model in eval mode with gradients, whatever the caller's state."""
    with (
        torch.inference_mode(False),
        torch.enable_grad(),
        no_silent_checkpoints(),
        uncompiled(),
        eval_mode(model),
    ):
        yield


@contextmanager
def all_trainable(model: nn.Module):
    """Makes frozen parameters trainable; freezes them again afterwards."""
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
    """Moves the model to `device`; moves it to `home` afterwards."""
    if device.type == "meta":
        raise InputError("device must not be meta, which holds no data")
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
    """Runs compiled modules eagerly: compiled code hides its operations."""
    if "torch._dynamo" not in sys.modules:
        yield
        return
    with torch.compiler.set_stance("force_eager"):
        yield


@contextmanager
def no_silent_checkpoints():
    """Raises where torch.utils.checkpoint would drop gradients with a warning."""
    lost = "None of the inputs have requires_grad"
    with warnings.catch_warnings():
        warnings.filterwarnings("error", lost)
        try:
            yield
        except UserWarning as warning:
            if lost not in str(warning):
                raise
            raise InputError(
                "the model checkpoints a module whose inputs need no gradient, so its "
                "parameters would get none: pass use_reentrant=False to checkpoint"
            ) from None


def trainable_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Trainable parameters by name; tied ones under their first name."""
    return {name: p for name, p in parameters_inside(model) if p.requires_grad}


def device_of(model: nn.Module) -> torch.device:
    """Device of the model's first parameter."""
    parameter = next(model.parameters(), None)
    if parameter is None:
        raise InputError("the model has no parameter")
    return parameter.device


def weights_hash(model: nn.Module) -> str:
    """Hash of the names and bytes of all tensors in the model's state."""
    return hash_of(state_inside(model))


def hash_of(tensors: Mapping[str, Any]) -> str:
    """Hash of the names and bytes of tensors."""
    digest = hashlib.sha256()
    for name, value in tensors.items():
        if isinstance(value, Tensor):
            digest.update(name.encode())
            flat = value.detach().cpu().contiguous().flatten()
            digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def tensor_hashes(tensors: Mapping[str, Any]) -> dict[str, str]:
    """Hashes by name of each tensor's dtype, shape and at most 2^16 of its values, at
    equal distances: hashing all would take long on a GPU."""
    return {
        name: _sample_hash(whole(x.detach()))
        for name, x in tensors.items()
        if isinstance(x, Tensor)
    }


def _sample_hash(tensor: Tensor) -> str:
    step = max(1, -(-tensor.numel() // 2**16))
    values = hash_of({"": tensor.reshape(-1)[::step]})
    return f"{tensor.dtype} {list(tensor.shape)} {values}"


def autocast_dtype(device: torch.device) -> torch.dtype | None:
    """dtype of the caller's autocast; None: autocast is off."""
    if not torch.is_autocast_enabled(device.type):
        return None
    return torch.get_autocast_dtype(device.type)


def code_of(function: Callable) -> str:
    """Name and code hash, which identify a function."""

    def parts(code):
        inner = [parts(x) if hasattr(x, "co_code") else x for x in code.co_consts]
        return code.co_code, code.co_names, inner

    code = getattr(function, "__code__", None)
    text = repr(parts(code)) if code is not None else ""
    name = getattr(function, "__qualname__", type(function).__qualname__)
    return f"{name} {hashlib.sha256(text.encode()).hexdigest()}"


def update_hash(digest: Any, batch: Batch) -> None:
    """Adds the tensors of a batch to a hashlib digest."""
    add_tensors(digest, (batch.args, batch.kwargs, batch.labels, batch.indices))


def add_tensors(digest: Any, tree: Any) -> None:
    """Adds the tensors of nested containers to a hashlib digest."""
    for path, leaf in tree_flatten_with_path(tree)[0]:
        if isinstance(leaf, Tensor):
            digest.update(f"{keystr(path)} {leaf.dtype} {leaf.shape}".encode())
            flat = leaf.detach().cpu().contiguous().flatten()
            digest.update(flat.view(torch.uint8).numpy().data)
