"""Downloads from the Hugging Face Hub into its local cache."""

from __future__ import annotations

import errno
from fnmatch import fnmatchcase
from pathlib import Path

from .._C import Error, InputError

# Repositories may have the weights twice; the first pattern with files counts.
_WEIGHTS = ("model.safetensors", "model-*-of-*.safetensors", "*.safetensors")
# Files that a merge reads or copies next to the weights.
_COMPANIONS = ("*.json", "*.txt", "*.model", "*.jinja", "*.py")
_IN_DIRECTORIES = (
    "additional_chat_templates/*",
    "[0-9]_*/*.json",  # modules of sentence-transformers
    "[0-9]_*/*.safetensors",
)
_OF_THE_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS}


def download(name: str, revision: str, cache: str) -> Path:
    """Brings a model's snapshot into the cache, and returns it.

    Only the files that a merge needs. Resumes an interrupted download. Raises
    InputError if the Hub does not give the model, Error if the disk does not take it.
    """
    try:
        import huggingface_hub
    except ImportError:
        raise InputError(
            f"downloading {name} needs huggingface_hub: pip install huggingface_hub"
        ) from None
    try:
        info = huggingface_hub.HfApi().model_info(name, revision=revision)
        names = [file.rfilename for file in info.siblings or []]
        weights = _weights(names)
        if not weights:
            raise InputError(
                f"{name}: has no .safetensors file on the Hub; save the model as "
                "safetensors, with save_pretrained of transformers"
            )
        snapshot = ""
        # Weights come last: a snapshot that has them has the rest.
        for files in (_companions(names), weights):
            snapshot = huggingface_hub.snapshot_download(
                name, revision=revision, cache_dir=cache, allow_patterns=files
            )
    except InputError:
        raise
    except Exception as error:  # of huggingface_hub's HTTP library, which varies
        raise _explained(error, name, revision, cache) from error
    return Path(snapshot)


def _weights(names: list[str]) -> list[str]:
    top = [name for name in names if "/" not in name]
    for pattern in _WEIGHTS:
        if found := [name for name in top if fnmatchcase(name, pattern)]:
            return found
    return []


def _companions(names: list[str]) -> list[str]:
    return [
        name
        for name in names
        if any(
            fnmatchcase(name, pattern)
            for pattern in (_IN_DIRECTORIES if "/" in name else _COMPANIONS)
        )
    ]


def _explained(error: BaseException, name: str, revision: str, cache: str) -> Error:
    """One sentence for an error of huggingface_hub."""
    from huggingface_hub import constants, errors

    while isinstance(error, errors.LocalEntryNotFoundError) and error.__cause__:
        error = error.__cause__
    if isinstance(error, errors.GatedRepoError):
        return InputError(
            f"{name}: access to this model is restricted; accept its terms at "
            f"{constants.ENDPOINT}/{name} and log in with: hf auth login"
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        return InputError(
            f"{name!r} is neither a directory nor a model on the Hub; check the name, "
            "or log in if the model is private, with: hf auth login"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return InputError(
            f"{name}: expected a branch, tag or commit on the Hub, got {revision!r}"
        )
    if isinstance(error, errors.OfflineModeIsEnabled):
        return InputError(
            f"{name!r} is neither a directory nor, at revision {revision!r}, complete "
            f"in the Hub's cache {cache}; unset HF_HUB_OFFLINE to download it"
        )
    if isinstance(error, errors.HfHubHTTPError):
        status = error.response.status_code
        return InputError(
            f"{name!r} is not a directory; the Hub at {constants.ENDPOINT} answered "
            f"with HTTP status {status}; try again later"
        )
    reason = next(iter(str(error).splitlines()), type(error).__name__)
    if isinstance(error, OSError) and error.errno in _OF_THE_DISK:
        return Error(f"cannot download {name} into {cache}: {reason}")
    return InputError(
        f"{name!r} is not a directory, and the Hub at {constants.ENDPOINT} cannot be "
        f"reached ({reason}); rerun with a connection, which resumes the download"
    )
