"""A Fisher that another program wrote, as a Fisher file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from .. import _C
from .._C import InputError
from .._common.arguments import check_choice, check_count
from .._merge.states import FLOATS, some
from ..fisher_result import STORAGES, FisherResult
from ..recipes import inspect
from .fisher_file import check_output, write_fisher
from .loading import load
from .names import Weights
from .safetensors import mapped_tensors
from .state import Deferred

ESTIMATOR = "imported"


def import_fisher(
    file: str | os.PathLike,
    out: str | os.PathLike,
    *,
    num_examples: int,
    model: str | os.PathLike | None = None,
    storage: str = "float32",
) -> FisherResult:
    """Writes the means F of `file` with the metadata of a Fisher file.

    Args:
        file: .safetensors, or a state dict that torch.save wrote, with the names and
            shapes of the model's tensors.
        out: the Fisher file, .safetensors.
        num_examples: N of the data set, by which a merge scales the mean.
        model: directory of the model that the Fisher belongs to; names and shapes are
            compared with its tensors and its hash is stored. None: unknown.
        storage: form of the file, as in FisherResult.save.

    Raises InputError for other files, other tensors and values below 0; Error for
    values that are not finite.
    """
    check_count("num_examples", num_examples)
    check_choice("storage", storage, STORAGES)
    path = check_output(out)
    tensors = _tensors(Path(file))
    weights = None if model is None else Weights(_C.find_model(model))
    if weights is not None:
        if weights.shapes is None:
            raise InputError(f"{model}: expected a model directory with safetensors")
        for name, tensor in tensors.items():
            expected = weights.shapes.get(name)
            if expected != tensor.shape:
                raise InputError(
                    f"{file}: {name!r} has the shape {list(tensor.shape)}; expected a "
                    f"tensor of {model}"
                    + (f", with {list(expected)}" if expected is not None else "")
                )
    return write_fisher(
        path,
        {name: tensor.shape for name, tensor in tensors.items()},
        lambda name: tensors[name].read(),
        FisherResult(
            {},
            num_examples=num_examples,
            num_examples_used=num_examples,
            estimator=ESTIMATOR,
            labels="",
            base_model_hash="" if weights is None else weights.hash,
        ),
        {},
        storage,
    )


def _tensors(file: Path) -> dict[str, Deferred]:
    if not file.is_file():
        raise InputError(f"{file}: no such file")
    if file.suffix == ".safetensors":
        if "format_version" in inspect(file, hashes=False).get("metadata", {}):
            raise InputError(f"{file}: has the metadata of a Fisher file already")
        return mapped_tensors(file)
    found = load(file)
    if not isinstance(found, Mapping):
        raise InputError(f"{file}: expected a dict of tensors")
    wrong = [
        str(name)
        for name, x in found.items()
        if not (isinstance(name, str) and isinstance(x, Tensor) and x.dtype in FLOATS)
    ]
    if wrong:
        raise InputError(
            f"{file}: expected floating-point tensors by name, got others for "
            f"{some(wrong)}"
        )
    return {
        name: Deferred(tuple(x.shape), lambda x=x: x.detach())
        for name, x in found.items()
    }
