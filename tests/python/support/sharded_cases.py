"""Fishers of models that fully_shard (FSDP2) shards, and of the same models whole."""

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import merganser
import tiny_models
import torch
from fisher_checkpoints import recurrent
from ranks_cases import Encoder, Tied, texts, tokens, vectors
from torch import distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.utils.checkpoint import checkpoint


class Layer(nn.Sequential):
    pass


class Checkpointed(Layer):
    def forward(self, x):
        return checkpoint(super().forward, x, use_reentrant=False)


def mlp(kind=Layer):
    torch.manual_seed(3)
    first = kind(nn.Linear(5, 6), nn.LayerNorm(6), nn.Tanh())
    return nn.Sequential(first, kind(nn.Linear(6, 7), nn.Tanh()), nn.Linear(7, 3))


def frozen():
    model = mlp()
    model[0].requires_grad_(False)
    return model


class Tagger(Encoder):
    """A label per token: longer batches take more backward passes for "exact"."""

    def forward(self, input_ids, attention_mask):
        return self.head(self.inner(self.table(input_ids)).tanh())


def bert():
    torch.manual_seed(3)
    return tiny_models.bert()


def sharded(model, **options):
    """Shards the layers, then the rest."""
    for module in model.modules():
        if isinstance(module, Layer) or type(module).__name__ == "BertLayer":
            fully_shard(module, **options)
    return fully_shard(model, **options)


def in_one_group(model):
    fully_shard([model[0], model[2]])
    return fully_shard(model)


def replicated(model):
    """On two ranks each, twice."""
    size = distributed.get_world_size()
    names = {"mesh_dim_names": ("replicas", "shards")}
    return sharded(model, mesh=init_device_mesh("cpu", (size // 2, 2), **names))


def trained(model):
    """Has gradients, and the root's parameters from a forward pass."""
    model = sharded(model)
    x = torch.ones(2, 5, dtype=torch.float64)
    model(x).sum().backward()
    model(x)
    return model


class Case(NamedTuple):
    make: Callable[[], nn.Module]
    data: Any
    shard: Callable[[nn.Module], nn.Module] = sharded
    options: dict[str, Any] = {"estimator": "exact"}
    dtype: torch.dtype = torch.float64


def cases(count):
    """The cases for this number of ranks, by name."""
    exact, float32 = {"estimator": "exact"}, torch.float32
    unlabelled = [{k: x for k, x in b.items() if k != "labels"} for b in texts()]
    found = {
        "tagger": Case(Tagger, unlabelled, options=exact | {"loss": "classification"}),
        "tied": Case(Tied, tokens(), options={"estimator": "mc"}),
        "recurrent": Case(recurrent, tokens(), options={"estimator": "empirical"}),
        "one batch": Case(mlp, vectors((4,))),
        "limit": Case(mlp, vectors(), options=exact | {"limit": 9}),
        "frozen": Case(frozen, vectors()),
        "all": Case(frozen, vectors(), options=exact | {"trainable_only": False}),
        "in one group": Case(mlp, vectors(), in_one_group),
        "trained": Case(mlp, vectors(), trained),
        "checkpointed": Case(lambda: mlp(Checkpointed), vectors()),
        "autocast": Case(
            bert, texts(), options=exact | {"dtype": torch.bfloat16}, dtype=float32
        ),
    }
    for estimator in ("exact", "mc", "empirical"):
        options = {"estimator": estimator}
        if estimator == "mc":
            options["samples"] = 2
        found[f"mlp {estimator}"] = Case(mlp, vectors(), options=options)
        found[f"bert {estimator}"] = Case(bert, texts(), options=options)
        half = vectors(dtype=float32)
        found[f"float32 {estimator}"] = Case(mlp, half, options=options, dtype=float32)
    found["float32 bert"] = Case(bert, texts(), dtype=float32)
    if count == 4:
        found["replicated"] = Case(mlp, vectors(), replicated)
    return found


def estimate(model, data, group=None, **options):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "no rule gives|limit takes the first")
        return merganser.fisher(model, data, process_group=group, **options)
