"""Warnings at the caller's line."""

import sys
import warnings


def warn(message: str) -> None:
    """Warns with the line of the caller outside of the package."""
    level, frame = 1, sys._getframe()
    while frame is not None and _is_ours(frame):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, stacklevel=level)


def _is_ours(frame) -> bool:
    package = frame.f_globals.get("__package__") or ""
    return package.partition(".")[0] == __name__.partition(".")[0]
