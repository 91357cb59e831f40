"""optimizer.pt of a Trainer, optimizer.bin of FSDP with whole states, and other files
with the `state_dict` of one optimizer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from .._C import InputError
from .loading import load
from .moments import read_states
from .state import OptimizerState


def read_torch_file(path: Path) -> OptimizerState:
    state_dict = load(path)
    if isinstance(state_dict, Mapping) and "optimizer" in state_dict:
        state_dict = state_dict["optimizer"]
    if not isinstance(state_dict, Mapping) or not {"state", "param_groups"} <= set(
        state_dict
    ):
        raise InputError(
            f"{path}: expected the state_dict of an optimizer, with the keys state and "
            "param_groups"
        )
    states, groups = state_dict["state"], state_dict["param_groups"]
    keys = [list(group["params"]) for group in groups]
    if all("param_names" in group for group in groups):
        names = [list(group["param_names"]) for group in groups]
        name_of = dict(zip(sum(keys, []), sum(names, []), strict=True))
        states = {name_of[key]: state for key, state in states.items()}
        keys = names
    return read_states(path, states, keys, [g for g in groups if g["params"]])
