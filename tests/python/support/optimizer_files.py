"""One state of Adam as the files of several programs, written by their layouts."""

import contextlib
import math
import os
import sys
import types

import safetensors.torch
import torch

SETTINGS = {"lr": 0.0, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.0}


def make_state(seed=0, shapes=None):
    """{name: {exp_avg_sq, exp_avg, step}}."""
    generator = torch.Generator().manual_seed(seed)
    shapes = shapes or {"bias": (7,), "embed.weight": (11, 6), "layer.0.weight": (5, 6)}
    return {
        name: {
            "step": torch.tensor(40.0),
            "exp_avg": 0.1 * torch.randn(shape, generator=generator),
            "exp_avg_sq": torch.rand(shape, generator=generator),
        }
        for name, shape in shapes.items()
    }


def write_numbered(folder, state):
    """optimizer.pt; needs the model's order."""
    groups = [{**SETTINGS, "params": list(range(len(state)))}]
    numbered = dict(enumerate(state.values()))
    torch.save({"state": numbered, "param_groups": groups}, folder / "optimizer.pt")


def write_named_parameters(folder, state):
    """optimizer.pt of an optimizer that was given named parameters."""
    names = list(state)
    groups = [{**SETTINGS, "params": [0, 1, 2], "param_names": names}]
    numbered = dict(enumerate(state.values()))
    torch.save({"state": numbered, "param_groups": groups}, folder / "optimizer.pt")


def write_fsdp(folder, state):
    """optimizer.bin: FSDP's whole state, by name."""
    groups = [{**SETTINGS, "params": list(state)}]
    torch.save({"state": state, "param_groups": groups}, folder / "optimizer.bin")


def write_distributed(
    folder,
    state,
    wrap=lambda state, groups: {"optimizer": {"state": state, "param_groups": groups}},
    place="optimizer_0",
):
    """A directory of torch.distributed.checkpoint, as accelerate saves FSDP's."""
    import torch.distributed.checkpoint as dcp

    groups = [{**SETTINGS, "params": list(state)}]
    dcp.save(wrap(state, groups), checkpoint_id=folder / place, no_dist=True)


def write_torchtitan(folder, state):
    """Flat names, and the groups' settings by parameter."""

    def flat(state, groups):
        found = {f"state.{n}.{k}": x for n, s in state.items() for k, x in s.items()}
        for name in state:
            for key, value in SETTINGS.items():
                found[f"param_groups.{name}.{key}"] = value
        return {"optimizer": found}

    write_distributed(folder, state, flat, ".")


@contextlib.contextmanager
def deepspeed_classes():
    """Modules named as DeepSpeed's while a file is written."""

    class LossScaler:
        def __init__(self, scale):
            self.cur_scale = scale

    name = "deepspeed.runtime.fp16.loss_scaler"
    LossScaler.__module__, LossScaler.__qualname__ = name, "LossScaler"
    parts = name.split(".")
    names = [".".join(parts[: i + 1]) for i in range(len(parts))]
    modules = {name: types.ModuleType(name) for name in names}
    modules[name].LossScaler = LossScaler
    sys.modules |= modules
    try:
        yield LossScaler
    finally:
        for name in names:
            del sys.modules[name]


def write_zero(folder, state, stage, ranks=3):
    """Shards of ZeRO, two parameter groups.

    Stages 1 and 2: each group's values in one row, padded, cut into equal parts. Stage
    3: each parameter is padded and cut.
    """
    folder = folder / "global_step40"
    folder.mkdir()
    (folder.parent / "latest").write_text("global_step40")
    names = list(state)
    groups = [names[:2], names[2:]]
    with deepspeed_classes() as scaler:
        for rank in range(ranks):
            states = {
                i: {
                    key: part(state, group, key, rank, ranks, stage)
                    for key in ("exp_avg", "exp_avg_sq")
                }
                | {"step": 40}
                for i, group in enumerate(groups)
            }
            inner = {
                "state": states,
                "param_groups": [{**SETTINGS, "params": [i]} for i in range(2)],
            }
            key = "optimizer_state_dict" if stage == 3 else "base_optimizer_state"
            torch.save(
                {
                    "optimizer_state_dict": {
                        "loss_scaler": scaler(1.0),
                        "zero_stage": stage,
                        "partition_count": ranks if stage == 3 else [ranks, ranks],
                        key: inner,
                    },
                    "ds_version": "0.18.0",
                },
                folder / f"zero_pp_rank_{rank}_mp_rank_00_optim_states.pt",
            )
        shapes = [{n: state[n]["exp_avg"].shape for n in group} for group in groups]
        prefix = "zero_pp_rank_0_" if stage == 3 else ""
        torch.save(
            {"param_shapes": shapes, "module": {}, "buffer_names": []},
            folder / f"{prefix}mp_rank_00_model_states.pt",
        )


def part(state, group, key, rank, ranks, stage):
    if stage == 3:
        return torch.cat([cut(state[n][key].flatten(), rank, ranks) for n in group])
    return cut(torch.cat([state[n][key].flatten() for n in group]), rank, ranks)


def cut(values, rank, ranks):
    size = math.ceil(len(values) / ranks)
    padded = torch.zeros(size * ranks)
    padded[: len(values)] = values
    return padded[rank * size : (rank + 1) * size].clone()


def write_universal(folder, state):
    root = folder / "global_step40_universal" / "zero"
    (folder / "latest_universal").parent.mkdir(exist_ok=True)
    for name, values in state.items():
        (root / name).mkdir(parents=True)
        for key in ("exp_avg", "exp_avg_sq"):
            torch.save({"param": values[key]}, root / name / f"{key}.pt")
        torch.save(torch.tensor(40), root / name / "step.pt")
    groups = {"param_groups": [{**SETTINGS, "params": [0]}]}
    torch.save({"base_optimizer_state": groups}, root / "optimizer_state.pt")
    (folder / "latest_universal").write_text("global_step40_universal")


def write_safetensors(folder, state):
    for key in ("exp_avg", "exp_avg_sq"):
        tensors = {name: values[key] for name, values in state.items()}
        safetensors.torch.save_file(tensors, folder / f"{key}.safetensors")


WRITERS = {
    "optimizer.pt": write_numbered,
    "param_names": write_named_parameters,
    "optimizer.bin": write_fsdp,
    "distributed": write_distributed,
    "torchtitan": write_torchtitan,
    "zero-1": lambda folder, state: write_zero(folder, state, 1),
    "zero-2": lambda folder, state: write_zero(folder, state, 2),
    "zero-3": lambda folder, state: write_zero(folder, state, 3),
    "universal": write_universal,
    "safetensors": write_safetensors,
}


class Code:
    """Creates a directory when it is unpickled."""

    def __init__(self, folder):
        self.folder = str(folder)

    def __reduce__(self):
        return os.mkdir, (self.folder,)


def truncate(path, keep=0.6):
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data))])
