"""Fisher files of results that the ranks of a model hold in shards."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .. import _C
from .._C import Error
from .._checkpoint.fisher_file import write_values
from .._common.wrappers import whole


def write_sharded(
    path: Path, diagonal: Mapping[str, Tensor], metadata: _C.FisherMetadata
) -> None:
    """Gathers tensor by tensor on all ranks; the first rank writes the file."""
    from torch import distributed

    names = sorted(diagonal)
    gathered = (whole(diagonal[name]) for name in names)
    first: Any = diagonal[names[0]]
    mesh = first.device_mesh
    failure: Exception | None = None
    if not any(mesh.get_coordinate()):
        try:
            write_values(
                path,
                {name: tuple(diagonal[name].shape) for name in names},
                lambda _: next(gathered),
                metadata.to_dict(),
                metadata.storage,
            )
        except Exception as error:
            failure = error
    for _ in gathered:
        pass
    failed = torch.tensor([failure is not None], dtype=torch.int32, device=first.device)
    for group in mesh.get_all_groups():
        distributed.all_reduce(failed, distributed.ReduceOp.MAX, group)
    if failure is not None:
        raise failure
    if failed.item():
        raise Error(f"{path} could not be written by the first rank of the model")
