"""Merges of files, as recipes say; and what the executable says of files."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

from . import _C
from ._arguments import check_count


def merge_recipe(
    recipe: str | os.PathLike,
    out: str | os.PathLike,
    *,
    threads: int | None = None,
    memory: int = 256 << 20,
    resume: bool = False,
    shard_bytes: int | None = None,
    allow_nonfinite: bool = False,
    progress: Callable[[int, int, str], None] | None = None,
) -> dict[str, Any]:
    """Carries out a recipe, tensor by tensor, never with whole models in memory.

    Args:
        recipe: the YAML file, see docs/recipes.md.
        out: the folder to make, a Hugging Face model directory. It appears under
            its name only when it is whole.
        threads: at most 1024; None or 0: all cores. The bytes are the same for any
            number and any memory.
        memory: most bytes of buffers.
        resume: go on from what a killed or interrupted run left in OUT.merging, to the
            same bytes.
        shard_bytes: most bytes of one file; None: as the base's.
        allow_nonfinite: merge NaN and infinities like other values, and count them.
        progress: called with megabytes done, megabytes in all and a text. After an
            exception of it, as after Ctrl-C, what is done stays in OUT.merging.

    Returns:
        What `merganser merge --json` prints: tensors merged and copied, elements,
        bytes, seconds, values that are not finite; for removal also the fraction of
        clamped denominators.

    Raises:
        InputError: arguments, a recipe or files that do not fit, before anything is
            written.
        Error: what fails on the way, such as a full disk.
    """
    threads = 0 if threads is None else threads
    check_count("threads", threads, least=0, most=1024)
    check_count("memory", memory)
    if shard_bytes is not None:
        check_count("shard_bytes", shard_bytes)
    return json.loads(
        _C.merge_recipe(
            recipe,
            out,
            threads,
            memory,
            resume,
            shard_bytes,
            allow_nonfinite,
            progress,
        )
    )


def verify(folder: str | os.PathLike) -> dict[str, Any]:
    """Whether a merged model and what it was made of are still the same.

    Compares content hashes with those in its merganser.json; reads everything.
    Returns what `merganser verify --json` prints. Raises InputError where there is no
    such file.
    """
    return json.loads(_C.verify(folder))


def plan(recipe: str | os.PathLike) -> dict[str, Any]:
    """What `merge_recipe` would do: every tensor, bytes to read and write, memory.

    Reads headers only. Returns what `merganser plan --json` prints. Raises
    InputError with all problems of the recipe and its files at once.
    """
    return json.loads(_C.plan(recipe))


def inspect(path: str | os.PathLike, *, hashes: bool = True) -> dict[str, Any]:
    """Names, shapes, dtypes, metadata and hashes of a checkpoint or Fisher file.

    hashes=False reads headers only. Returns what `merganser inspect --json`
    prints. Raises InputError where `path` is no checkpoint.
    """
    return json.loads(_C.inspect(path, hashes))
