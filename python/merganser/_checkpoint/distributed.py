"""Directories of torch.distributed.checkpoint, as FSDP and torchtitan write them."""

from __future__ import annotations

import functools
import io
import pickle
import re
from collections import OrderedDict, defaultdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .._C import InputError
from .loading import DAMAGE, Inert, damaged, load
from .moments import SETTINGS, read_states
from .state import Deferred, OptimizerState

METADATA = ".metadata"
# The classes of which a .metadata consists.
_CLASSES = {
    "torch.distributed.checkpoint.metadata": {
        "BytesStorageMetadata",
        "ChunkStorageMetadata",
        "Metadata",
        "MetadataIndex",
        "StorageMeta",
        "TensorProperties",
        "TensorStorageMetadata",
        "_MEM_FORMAT_ENCODING",
    },
    "torch.distributed.checkpoint.filesystem": {"_StorageInfo"},
    "torch.serialization": {"_get_layout"},
    "torch": {"Size", "device"},
    "collections": {"OrderedDict"},
    "pathlib": {"PosixPath", "PurePosixPath", "Path"},
    "pathlib._local": {"PosixPath", "Path"},
}
_SAME = {"Size": tuple, "OrderedDict": OrderedDict}
_STATE = re.compile(r"(?:^|\.)state\.(.+)\.([^.]+)$")
_GROUPS = re.compile(r"(?:^|\.)param_groups(?:$|\.)")


def _member(owner: Any, name: str) -> Inert:
    """Stands for getattr, by which some versions of Python store an enumeration's
    member (3.11.0 to 3.11.3)."""
    if owner is not Inert:
        raise InputError(
            f"contains getattr of {owner!r} and {name!r}; expected the metadata of a "
            "distributed checkpoint, and nothing else is read, as it could run code"
        )
    return Inert()


class _MetadataUnpickler(pickle.Unpickler):
    """Creates Inert in place of the classes above, and of no others."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("builtins", "getattr"):
            return _member
        if module == "torch":
            found = getattr(torch, name, None)
            if isinstance(found, torch.dtype):
                return found
        if name in _CLASSES.get(module, ()):
            return _SAME.get(name, Inert)
        raise InputError(
            f"contains {module}.{name}; expected the metadata of a distributed "
            "checkpoint, and nothing else is read, as it could run code"
        )


class DistributedFile:
    """Tensors and values of a directory, read without a process group."""

    def __init__(self, directory: Path):
        self.directory = directory
        path = directory / METADATA
        try:
            with path.open("rb") as file:
                metadata = _MetadataUnpickler(file).load()
            self.entries: dict[str, Any] = dict(metadata.state_dict_metadata)
            self._places = defaultdict(list)
            for index, place in metadata.storage_data.items():
                offset = getattr(index, "offset", None)  # None of numbers
                self._places[index.fqn].append((offset, place))
        except InputError as error:
            raise InputError(f"{path}: {error}") from None
        except (*DAMAGE, AttributeError, pickle.UnpicklingError):
            raise damaged(path) from None

    def shape(self, key: str) -> tuple[int, ...]:
        """The shape of a tensor; () of numbers and texts."""
        return tuple(getattr(self.entries[key], "size", ()))

    def read(self, key: str) -> Any:
        """A tensor, a number, a text or a collection of them."""
        if hasattr(self.entries[key], "chunks"):
            return self.tensor(key)
        return self._read(self._places[key][0][1])

    def tensor(self, key: str) -> Tensor:
        entry = self.entries[key]
        whole = torch.empty(entry.size, dtype=_dtype(entry.properties))
        filled = 0
        for offset, place in self._places[key]:
            part = self._read(place)
            offset = offset or (0,) * part.dim()
            whole[
                tuple(
                    slice(begin, begin + size)
                    for begin, size in zip(offset, part.shape, strict=True)
                )
            ] = part
            filled += part.numel()
        if filled != whole.numel():
            raise InputError(
                f"{self.directory}: {key} has {filled} of {whole.numel()} values: a "
                "shard is missing"
            )
        return whole

    def _read(self, place: Any) -> Any:
        path = self.directory / place.relative_path
        if path.resolve().parent != self.directory.resolve():
            raise InputError(
                f"{self.directory}: a shard is in another directory: {path}"
            )
        if getattr(place, "transform_descriptors", None):
            raise InputError(f"{path}: compressed shards are not supported")
        try:
            with path.open("rb") as file:
                file.seek(place.offset)
                data = file.read(place.length)
        except OSError as error:
            raise InputError(f"{path}: {error.strerror}; a shard is missing") from None
        if len(data) != place.length:
            raise damaged(path)
        return load(io.BytesIO(data), path)


def _dtype(properties: Any) -> torch.dtype:
    """TensorProperties are pickled as a tuple that begins with the type."""
    return properties.state[0] if hasattr(properties, "state") else properties.dtype


def read_distributed(directory: Path) -> OptimizerState:
    """The state of the optimizer in a directory, which may also have other things."""
    file = DistributedFile(directory)
    states: dict[str, dict[str, Any]] = defaultdict(dict)
    groups: dict[str, dict[str, Any]] = defaultdict(dict)
    whole_groups = None
    for key in file.entries:
        state = _STATE.search(key)
        group, _, setting = key.rpartition(".")
        if _GROUPS.search(group):
            if setting in SETTINGS:
                groups[group][setting] = file.read(key)
        elif _GROUPS.search(key):
            whole_groups = file.read(key)
        elif state is not None:
            name, field = state.groups()
            states[name][field] = (
                Deferred(file.shape(key), functools.partial(file.tensor, key))
                if file.shape(key)
                else file.read(key)
            )
    if not states:
        raise InputError(
            f"{directory}: a distributed checkpoint without an optimizer's state; "
            "expected keys such as optimizer.state.NAME.exp_avg_sq"
        )
    settings = list(groups.values()) if whole_groups is None else whole_groups
    return read_states(directory, states, None, settings)
