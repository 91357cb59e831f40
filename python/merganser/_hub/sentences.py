"""Errors of huggingface_hub, in one sentence."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from .. import _C
from .._C import Error, InputError

_OF_THE_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS}


@contextmanager
def in_sentences(name: str, revision: str, folder: str) -> Iterator[None]:
    """Raises InputError if the Hub does not give the model, Error if the disk does not
    take it into `folder`."""
    try:
        import huggingface_hub  # noqa: F401
    except ImportError:
        raise InputError(
            f"downloading {name} needs huggingface_hub: pip install huggingface_hub"
        ) from None
    try:
        yield
    except Error:
        raise
    except Exception as error:  # of huggingface_hub's HTTP library, which varies
        raise _explained(error, name, revision, folder) from error


def _explained(error: BaseException, name: str, revision: str, folder: str) -> Error:
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
            f"in the Hub's cache {_C.hub_cache()}; unset HF_HUB_OFFLINE to download it"
        )
    if isinstance(error, errors.HfHubHTTPError):
        status = error.response.status_code
        return InputError(
            f"{name!r} is not a directory; the Hub at {constants.ENDPOINT} answered "
            f"with HTTP status {status}; try again later"
        )
    reason = next(iter(str(error).splitlines()), type(error).__name__)
    if isinstance(error, OSError) and error.errno in _OF_THE_DISK:
        return Error(f"cannot download {name} into {folder}: {reason}")
    return InputError(
        f"{name!r} is not a directory, and the Hub at {constants.ENDPOINT} cannot be "
        f"reached ({reason}); rerun with a connection, which resumes a download"
    )
