"""The checkpoint that a model was loaded from or saved to."""

import os
import sys
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from .. import _C
from .._C import InputError
from .._common.sentence import is_sentence_model, names_in_files
from .._common.wrappers import parameters_inside, state_inside, unwrapped
from .._merge.checkpoint import DTYPES, decode, read_state
from .._merge.states import memory_of, some
from ..fisher_result import FisherResult, may_belong_to
from .model_state import tensor_hashes

# Names in old files of BERT, which transformers changes as it reads them.
_OLD_NAMES = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}

Tensors = dict[str, Tensor]


class Stored:
    """A checkpoint that has a model's tensors.

    Attributes:
        hash: of the checkpoint's tensors, for `base_model_hash`.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        parameters: Mapping[str, Tensor],
        buffers: Mapping[str, Tensor] | None = None,
        convert: Callable[[Tensors], Tensors] | None = None,
    ):
        """Raises InputError unless the checkpoint has these tensors.

        A parameter may be stored under any of its names, and each tensor in another
        dtype. Buffers may be missing. convert: gives tensors the names and shapes of
        files, where those in memory are others.
        """
        raw, _ = _C.read_checkpoint(path)
        stored = {_new_name(n): (dtype, shape, data) for n, dtype, shape, data in raw}
        self._convert = convert if any(n not in stored for n in parameters) else None
        held = {name: p.detach() for name, p in parameters.items()}
        if self._convert is not None:
            held = self._convert(held)
        by_memory: dict[tuple, list[str]] = defaultdict(list)
        for name, tensor in held.items():
            by_memory[memory_of(tensor)].append(name)
        self._stored_names = {}  # keys: names that the checkpoint lacks
        missing = []
        for names in by_memory.values():
            found = next((name for name in names if name in stored), None)
            if found is None:
                missing.append(names[0])
            self._stored_names |= {n: found for n in names if n not in stored}
        if missing:
            raise InputError(
                f"{path} lacks tensors of the model: {some(missing)}; pass the "
                "directory or file that the model was loaded from or saved to"
            )
        for name, tensor in (held | dict(buffers or {})).items():
            if name in stored and not _equal(tensor, *stored[name]):
                raise InputError(
                    f"{path}: tensor {name!r} differs from the model's; pass the "
                    "directory or file that the model was loaded from or saved to"
                )
        self.hash = _C.content_hash(path)

    @classmethod
    def of(cls, path: str | os.PathLike, model: nn.Module) -> "Stored":
        parameters = dict(parameters_inside(model, remove_duplicate=False))
        state = state_inside(model)
        buffers = {
            name: x
            for name, x in state.items()
            if name not in parameters and isinstance(x, Tensor)
        }
        return cls(path, parameters, buffers, _conversion(model))

    def form(self, diagonal: Tensors) -> Tensors:
        """Values of the model's parameters, with the checkpoint's names and shapes."""
        if self._convert is not None:
            diagonal = self._convert(diagonal)
        return {self._stored_names.get(n, n): values for n, values in diagonal.items()}


def is_of_other_model(
    fisher: FisherResult, model: Any, state: Mapping[str, Tensor] | None = None
) -> bool:
    """True if a Fisher is known to be that of other weights than a model's: by hashes
    of checkpoints or, where one is unknown, by those of tensors.

    state: the model's tensors; None: not compared. Those of other names or dtypes are
    unknown.
    """
    if fisher.base_model_hash and (content_hash := content_hash_of(model)):
        return not may_belong_to(fisher, content_hash)
    if not fisher.tensor_hashes or state is None:
        return False
    same = {n: x for n, x in state.items() if n in fisher.tensor_hashes}
    return any(
        found != fisher.tensor_hashes[name]
        for name, found in tensor_hashes(same).items()
        if found.split(" ")[0] == fisher.tensor_hashes[name].split(" ")[0]
    )


def content_hash_of(model: Any) -> str:
    """The hash of a checkpoint, given by its path or by a module that transformers
    loaded from it and that still has its weights; empty: unknown."""
    if isinstance(model, str | os.PathLike):
        return _C.content_hash(model)
    inner = unwrapped(model) if isinstance(model, nn.Module) else model
    path = getattr(inner, "name_or_path", None)
    if not isinstance(path, str) or not os.path.isdir(path):
        return ""
    try:
        return Stored.of(path, inner).hash
    except _C.Error:  # no safetensors, or other weights
        return ""


def _conversion(model: nn.Module) -> Callable[[Tensors], Tensors] | None:
    """Changes that transformers makes to tensors as it saves them, such as splitting
    fused experts, and the names that sentence-transformers gives them. They move
    values, so they apply to anything with a value per weight."""
    if is_sentence_model(model):
        return lambda tensors: names_in_files(model, tensors)
    modeling = sys.modules.get("transformers.modeling_utils")
    revert = getattr(modeling, "revert_weight_conversion", None)  # since version 5
    if modeling is None or revert is None:
        return None
    if not isinstance(model, modeling.PreTrainedModel):
        return None
    return lambda tensors: revert(model, tensors)


def _new_name(name: str) -> str:
    for old, new in _OLD_NAMES.items():
        if name.endswith(old):
            return name.removesuffix(old) + new
    return name


def read_tensors(path: str | os.PathLike) -> Tensors:
    """The tensors of a checkpoint by the names that transformers gives them."""
    return {_new_name(name): x for name, x in read_state(path).items()}


def _equal(tensor: Tensor, dtype: str, shape, data: bytes) -> bool:
    """Equal values, up to the rounding of one to the other's dtype."""
    if dtype not in DTYPES or tuple(shape) != tuple(tensor.shape):
        return False
    if tensor.numel() == 0:
        return True
    stored, tensor = decode(dtype, shape, data), tensor.detach().cpu()
    return torch.equal(stored.to(tensor.dtype), tensor) or torch.equal(
        tensor.to(stored.dtype), stored
    )
