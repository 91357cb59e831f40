"""Models of the Hub before their download: their small files, and the headers of their
safetensors files."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from .. import _C
from .._C import InputError
from .files import companions_of, weights_of
from .ranges import read_range
from .sentences import in_sentences

_LENGTH_BYTES = 8  # of the header's length, with which a file begins
_MAX_LENGTH = 100_000_000  # as in csrc/merganser/io/safetensors_header.h


def fetch_headers(text: str, name: str, revision: str, root: str) -> Path:
    """Brings a model, which a recipe calls `text`, into a directory of `root`, which is
    laid out as the Hub's cache; returns the directory.

    Its safetensors files end after their headers; csrc/merganser/io/header_only.h reads
    the description next to it. Raises InputError if the Hub does not give the model.
    """
    with in_sentences(name, revision, root):
        import huggingface_hub

        info = huggingface_hub.HfApi().model_info(
            name, revision=revision, files_metadata=True
        )
        files = [file.rfilename for file in info.siblings or []]
        companions = companions_of(files)
        needed = companions + weights_of(name, files)
        weights = [file for file in needed if file.endswith(".safetensors")]
        sizes = _sizes(name, info, needed)
        snapshot = Path(
            huggingface_hub.snapshot_download(
                name,
                revision=info.sha,
                cache_dir=root,
                allow_patterns=[file for file in companions if file not in weights],
            )
        )

        def fetch(file: str) -> None:
            url = huggingface_hub.hf_hub_url(name, file, revision=info.sha)
            path = snapshot / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(_header(url, sizes[file]))

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(fetch, weights))
        description = {
            "model": text,
            "bytes": sum(
                sizes[file] for file in needed if not _is_cached(name, info, file)
            ),
            "sizes": {file: sizes[file] for file in weights},
        }
        path = snapshot.parents[1] / "headers" / f"{snapshot.name}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(description))
    return snapshot


def _sizes(name: str, info: Any, needed: list[str]) -> dict[str, int]:
    sizes = {file.rfilename: file.size for file in info.siblings}
    for file in needed:
        if sizes[file] is None:
            raise InputError(f"{name}: the Hub does not tell the size of {file}")
    return sizes


def _is_cached(name: str, info: Any, file: str) -> bool:
    import huggingface_hub

    cache = _C.hub_cache()
    found = huggingface_hub.try_to_load_from_cache(
        name, file, cache_dir=cache, revision=info.sha
    )
    return isinstance(found, str)


def _header(url: str, size: int) -> bytes:
    """The first bytes of a safetensors file: all of its header, or of one that does not
    fit the file its length only, which the reader refuses."""
    start = read_range(url, 0, min(_LENGTH_BYTES, size))
    length = int.from_bytes(start, "little")
    if 0 < length <= min(_MAX_LENGTH, size - _LENGTH_BYTES):
        start += read_range(url, _LENGTH_BYTES, length)
    return start
