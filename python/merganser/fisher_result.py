"""A Fisher diagonal with the metadata that a merge needs, in memory and as a file."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from . import _C
from ._C import InputError
from ._common.arguments import check_choice
from ._common.wrappers import is_shard

GRAM = "gram"  # `estimator` in files of Gram matrices
STORAGES = ("float32", "bfloat16", "factored")


@dataclass(eq=False, repr=False)
class FisherResult(Mapping[str, Tensor]):
    """The mean Fisher diagonal F: a mapping from parameter names to tensors.

    Attributes:
        diagonal: F by parameter name, in the parameters' shapes, float32 or wider; for
            a model that fully_shard has sharded DTensors, placed as the parameters.
        num_examples: N of the data set, by which a merge scales the mean.
        num_examples_used: number of examples that F is the mean over.
        estimator: name, as in `merganser.fisher`.
        samples: labels drawn per example.
        seed: random seed for sampling labels.
        labels: "model" (drawn from the model, or in expectation) or "data".
        base_model_hash: hash of the model's tensors; empty: unknown.
        at: the weights that F was estimated at, if other than the model's
            (`merganser fisher --at`).
        task_vector: what `merganser.fisher` measures with `base`: `total` and `groups`
            have the model's slope and the base's curvature along the task vector;
            None: not measured.
        scale: what `merganser calibrate` measures; None: not measured.
        tensor_hashes: hashes of the parameters of the module that `merganser.fisher`
            took, by name; not saved; empty: unknown.
    """

    diagonal: dict[str, Tensor]
    num_examples: int
    num_examples_used: int
    estimator: str
    samples: int = 1
    seed: int = 0
    labels: str = "model"
    base_model_hash: str = ""
    at: _C.FisherPoint | None = None
    task_vector: _C.TaskVectorStatistics | None = None
    scale: _C.FisherScale | None = None
    tensor_hashes: dict[str, str] = field(default_factory=dict)

    @property
    def H(self) -> dict[str, Tensor]:
        """N F, the sum over the data set, as in the merge formulas."""
        return {name: self.num_examples * f for name, f in self.diagonal.items()}

    def save(self, path: str | os.PathLike, *, storage: str = "float32") -> None:
        """Writes a Fisher file for recipes: safetensors with metadata, atomically.

        A sharded result is saved by all ranks together: rank 0 writes the tensors one
        after the other.

        Format: docs/method.md, section 4.

        Args:
            path: the file.
            storage: "float32"; "bfloat16": half the size; "factored": the means of
                every matrix's rows and columns, and vectors whole.
        """
        check_choice("storage", storage, STORAGES)
        if any(is_shard(f) for f in self.diagonal.values()):
            from ._fisher.sharded_file import write_sharded  # which imports this module

            write_sharded(Path(path), self.diagonal, self.metadata(storage))
        else:
            _C.write_fisher(path, self.diagonal, self.metadata(storage))

    def metadata(self, storage: str = "float32") -> _C.FisherMetadata:
        """The metadata of the file that `save` writes."""
        return _C.FisherMetadata(
            estimator=self.estimator,
            num_examples=self.num_examples,
            num_examples_used=self.num_examples_used,
            samples=self.samples,
            seed=self.seed,
            labels=self.labels,
            base_model_hash=self.base_model_hash,
            at=self.at,
            task_vector=self.task_vector,
            scale=self.scale,
            storage=storage,
        )

    @classmethod
    def load(cls, path: str | os.PathLike) -> FisherResult:
        """Reads a file that `save` or the executable wrote, as float32.

        Raises InputError for any other file.
        """
        tensors, metadata = _C.read_fisher(path)
        if metadata.estimator == GRAM:
            raise InputError(f"{path} contains Gram matrices; expected a Fisher")
        return cls(
            tensors,
            num_examples=metadata.num_examples,
            num_examples_used=metadata.num_examples_used,
            estimator=metadata.estimator,
            samples=metadata.samples,
            seed=metadata.seed,
            labels=metadata.labels,
            base_model_hash=metadata.base_model_hash,
            at=metadata.at,
            task_vector=metadata.task_vector,
            scale=metadata.scale,
        )

    def __getitem__(self, name: str) -> Tensor:
        return self.diagonal[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.diagonal)

    def __len__(self) -> int:
        return len(self.diagonal)

    def __repr__(self) -> str:
        count = sum(f.numel() for f in self.diagonal.values())
        return (
            f"FisherResult({self.estimator}, {self.num_examples_used} of "
            f"{self.num_examples} examples, {len(self)} tensors, {count:,} values)"
        )


def may_belong_to(fisher: FisherResult, content_hash: str) -> bool:
    """False if a Fisher is known to be that of another model than the one with this
    hash; an empty hash is unknown."""
    return "" in (fisher.base_model_hash, content_hash) or (
        fisher.base_model_hash == content_hash
    )
