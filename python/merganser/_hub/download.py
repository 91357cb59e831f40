"""Downloads from the Hugging Face Hub into its local cache."""

from __future__ import annotations

from pathlib import Path

from .files import companions_of, weights_of
from .sentences import in_sentences


def download(name: str, revision: str, cache: str) -> Path:
    """Brings a model's snapshot into the cache, and returns it.

    Only the files that a merge needs. Resumes an interrupted download. Raises
    InputError if the Hub does not give the model, Error if the disk does not take it.
    """
    with in_sentences(name, revision, cache):
        import huggingface_hub

        info = huggingface_hub.HfApi().model_info(name, revision=revision)
        files = [file.rfilename for file in info.siblings or []]
        weights = weights_of(name, files)
        snapshot = ""
        # Weights come last: a snapshot that has them has the rest.
        for needed in (companions_of(files), weights):
            snapshot = huggingface_hub.snapshot_download(
                name, revision=revision, cache_dir=cache, allow_patterns=needed
            )
    return Path(snapshot)
