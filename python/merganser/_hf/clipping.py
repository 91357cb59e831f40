"""Trainer's own gradient clipping, switched off while gradients are squared."""

from __future__ import annotations

from typing import Any


class Clipping:
    """Holds `max_grad_norm` of a Trainer's arguments while it is set to 0 there."""

    def __init__(self, args: Any):
        self._args = args
        self._norm: float | None = None  # while it is off

    def stop(self) -> None:
        if self._args.max_grad_norm > 0:
            self._norm = self._args.max_grad_norm
            self._args.max_grad_norm = 0.0

    def restore(self) -> float | None:
        """The norm to clip to instead of Trainer; None: it was not stopped."""
        norm, self._norm = self._norm, None
        if norm is not None:
            self._args.max_grad_norm = norm
        return norm
