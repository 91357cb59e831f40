"""Trainer's gradient clipping, disabled until the gradients have been squared."""

from __future__ import annotations

from typing import Any


class Clipping:
    """Keeps `max_grad_norm` of a Trainer's arguments while it is 0 there."""

    def __init__(self, args: Any):
        self._args = args
        self._norm: float | None = None  # while clipping is disabled

    def stop(self) -> None:
        if self._args.max_grad_norm > 0:
            self._norm = self._args.max_grad_norm
            self._args.max_grad_norm = 0.0

    def restore(self) -> float | None:
        """Returns the norm that the caller must clip to; None: clipping was enabled."""
        norm, self._norm = self._norm, None
        if norm is not None:
            self._args.max_grad_norm = norm
        return norm
