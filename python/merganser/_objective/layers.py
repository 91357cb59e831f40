"""A model's layers, in the order in which it uses them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from .._common.wrappers import name_inside, parameters_inside, state_inside
from .._fisher.batches import Batch
from .groups import layer_of


@dataclass
class Layer:
    """Tensors whose names agree up to the first number, such as encoder.layer.3, or
    without a number those of one module.

    Attributes:
        tensors: their names; one for tied tensors.
        linear: the weights of linear layers among them.
    """

    name: str
    tensors: list[str] = field(default_factory=list)
    linear: list[str] = field(default_factory=list)


def layers_in_order(module: nn.Module, batches: Iterable[Batch]) -> list[Layer]:
    """The layers by their first use in forward passes over the batches; those that no
    pass uses come last."""
    names = _names_of(module)
    uses = _Uses(names)
    with torch.no_grad(), uses:
        for batch in batches:
            module(*batch.args, **batch.kwargs)
    layers: dict[str, Layer] = {}
    for name in dict.fromkeys([*uses.first, *names.values()]):
        key = layer_of(name) or name.rpartition(".")[0] or name
        layer = layers.setdefault(key, Layer(key))
        layer.tensors.append(name)
        if name in uses.linear:
            layer.linear.append(name)
    return list(layers.values())


def _names_of(module: nn.Module) -> dict[int, str]:
    """Names of parameters and stored buffers by id, without wrappers."""
    buffers = module.named_buffers()
    named = [
        *parameters_inside(module),
        *((name_inside(module, name), x) for name, x in buffers),
    ]
    stored = state_inside(module)
    return {id(x): name for name, x in named if name in stored}


class _Uses(TorchFunctionMode):
    """Notes the first use of each tensor, and the weights of linear layers."""

    def __init__(self, names: dict[int, str]):
        super().__init__()
        self._names = names
        self.first: dict[str, Tensor] = {}
        self.linear: set[str] = set()

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        output = function(*args, **kwargs)
        if not any(isinstance(x, Tensor) for x in tree_leaves(output)):
            return output  # a query, such as of a dtype
        inputs = [x for x in tree_leaves((args, kwargs)) if id(x) in self._names]
        used = {self._names[id(x)]: x for x in inputs}
        self.first |= used  # keeps the place of a tensor that it has
        if function in (F.linear, F.multi_head_attention_forward):
            self.linear |= {name for name, x in used.items() if x.dim() == 2}
        return output
