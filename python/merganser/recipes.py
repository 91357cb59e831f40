"""Merges of files by recipe, and the executable's reports about files."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

from . import _C
from ._common.arguments import check_count
from ._hub.plan import plan_recipe


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
    """Runs a recipe tensor by tensor, without whole models in memory.

    Args:
        recipe: the YAML file, see docs/recipes.md.
        out: output directory, a Hugging Face model. It is written atomically: nothing
            appears under this name until it is complete.
        threads: at most 1024; None or 0: all cores. The bytes do not depend on threads
            or memory.
        memory: memory limit for buffers, in bytes.
        resume: resume an interrupted merge from OUT.merging; the bytes are the same.
        shard_bytes: max size of a file in bytes; None: as the base's.
        allow_nonfinite: merge NaN and infinities like other values, and count them.
        progress: called with megabytes done, total megabytes and a text. If it raises,
            as after Ctrl-C, the finished part stays in OUT.merging.

    Returns:
        The report of `merganser merge --json`: tensors merged and copied, elements,
        bytes, seconds, values that are not finite; for removal also the fraction of
        clamped denominators and the largest weight, for ewr the fraction of Fisher
        values below the floor.

    Raises:
        InputError: invalid arguments, recipe or files; nothing has been written.
        Error: a failure during the run, such as a full disk.
    """
    threads = 0 if threads is None else threads
    check_count("threads", threads, minimum=0, maximum=1024)
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
    """Checks that a merged model and its inputs have not changed.

    Compares content hashes with those in its merganser.json; reads all files. Returns
    the report of `merganser verify --json`. Raises InputError if that file does not
    exist.
    """
    return json.loads(_C.verify(folder))


def plan(recipe: str | os.PathLike) -> dict[str, Any]:
    """Plans a merge: every tensor, bytes to read and write, memory.

    Reads headers only; of models that the Hub's cache lacks, it fetches only these and
    the small files. Returns the report of `merganser plan --json`. Raises InputError
    with all problems of the recipe and its files at once.
    """
    return json.loads(plan_recipe(recipe))


def inspect(path: str | os.PathLike, *, hashes: bool = True) -> dict[str, Any]:
    """Names, shapes, dtypes, metadata and hashes of a checkpoint or Fisher file.

    hashes=False reads headers only. Returns the report of `merganser inspect --json`.
    Raises InputError if `path` is not a checkpoint.
    """
    return json.loads(_C.inspect(path, hashes))
