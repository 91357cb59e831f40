"""exp_avg_sq.safetensors, with the names of the parameters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .moments import read_states
from .safetensors import mapped_tensors
from .state import OptimizerState

SQUARES, MEANS = "exp_avg_sq.safetensors", "exp_avg.safetensors"


def read_named(path: Path) -> OptimizerState:
    """Squares of one file; the means from the file MEANS next to it, if it exists."""
    states: dict[str, dict[str, Any]] = {}
    for key, file in (("exp_avg_sq", path), ("exp_avg", path.with_name(MEANS))):
        if file.exists():
            for name, tensor in mapped_tensors(file).items():
                states.setdefault(name, {})[key] = tensor
    return read_states(path, states, None, [])
