# ruff: noqa: N999 (the name of the compiled module)
"""The compiled part of merganser; loading it brings torch.ops.merganser.

Long functions release the GIL and end with KeyboardInterrupt on Ctrl-C. A progress
callback gets units done, units in all and a text; what it raises ends the work.
"""

import os
from collections.abc import Callable, Mapping
from typing import TypeAlias

from torch import Tensor

Path: TypeAlias = os.PathLike | str
Progress: TypeAlias = Callable[[int, int, str], None] | None

class Error(RuntimeError):
    """Something failed while working, such as a full disk."""

class InputError(Error, ValueError):
    """What was given is wrong: arguments, files, recipes."""

def content_hash(path: Path) -> str:
    """Hash of a checkpoint's names, shapes, dtypes and data, whatever its shards."""

class FisherMetadata:
    """What a Fisher file says beside its tensors; see merganser.FisherResult."""

    def __init__(
        self,
        *,
        estimator: str,
        num_examples: int,
        num_examples_used: int,
        samples: int,
        seed: int,
        labels: str,
        base_model_hash: str,
    ) -> None: ...
    @property
    def estimator(self) -> str: ...
    @property
    def num_examples(self) -> int: ...
    @property
    def num_examples_used(self) -> int: ...
    @property
    def samples(self) -> int: ...
    @property
    def seed(self) -> int: ...
    @property
    def labels(self) -> str: ...
    @property
    def base_model_hash(self) -> str: ...

def write_fisher(
    path: Path, tensors: Mapping[str, Tensor], metadata: FisherMetadata
) -> None:
    """Writes float32 tensors, contiguous and on the CPU, as a Fisher file."""

def read_fisher(path: Path) -> tuple[dict[str, Tensor], FisherMetadata]:
    """Reads a Fisher file, or the shards of one in a folder."""

class MethodInfo:
    """A merge method: what it is called and what it needs."""

    @property
    def id(self) -> int: ...
    @property
    def name(self) -> str: ...
    @property
    def formula(self) -> str: ...
    @property
    def needs_base(self) -> bool: ...
    @property
    def needs_fishers(self) -> bool: ...
    @property
    def needs_base_fisher(self) -> bool: ...
    @property
    def needs_num_examples(self) -> bool: ...
    @property
    def normalizes(self) -> bool: ...
    @property
    def normalizes_by_default(self) -> bool: ...

def find_method(name: str) -> MethodInfo:
    """By its name in recipes; InputError lists the names there are."""

def merge_recipe(recipe: Path, out: Path, threads: int, progress: Progress) -> str:
    """Carries out a recipe; threads 0: all cores. The report as JSON."""

def plan(recipe: Path) -> str:
    """What merge_recipe would do, as JSON."""

def inspect(path: Path, hashes: bool) -> str:
    """What a checkpoint or Fisher file holds, as JSON."""
