"""Squares for models whose parameters torch's fully_shard (FSDP2) has sharded."""

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten

from .._C import InputError
from .._common.wrappers import is_shard, parameters_inside
from .batches import Batch
from .common_passes import CommonPasses
from .model_state import trainable_parameters
from .passes import OutputsOf
from .ranks import Ranks
from .squares import PerExampleSquares, accumulator

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

SHARDED = "a model that fully_shard (FSDP2) has sharded"


def check_arguments(
    estimator: str, process_group: "ProcessGroup | None", **others: Any
) -> None:
    """Refuses what needs the whole of a model that is sharded."""
    if process_group is None:
        raise InputError(f"{SHARDED} needs process_group, the group of its ranks")
    if estimator == "mc_batch":
        raise InputError(
            "estimator='mc_batch' takes whole gradients, which no rank holds of "
            f"{SHARDED}: use 'mc'"
        )
    for name, value in others.items():
        if value is not None:
            raise InputError(f"{name} cannot be used with {SHARDED}: omit it")


def reshard(model: nn.Module) -> None:
    """Frees what FSDP has gathered, such as the root's parameters after a forward pass
    without a backward pass."""
    for module in _modules(model):
        module.reshard()


@contextmanager
def sharded_squares(
    model: nn.Module, unsupported: str, ranks: Ranks
) -> Iterator["ShardedSquares"]:
    """Squares of a sharded model, whose passes flow through hooks until the end."""
    from torch.distributed.fsdp import FSDPModule

    if not isinstance(model, FSDPModule):
        raise InputError(
            "parts of the model are sharded, but not the model itself: call "
            "fully_shard(model), too"
        )
    ranks.join(_groups(model, ranks))
    with ranks.passing():
        parts = [_Part(module, model) for module in _modules(model)]
    parameters = {n: p for part in parts for n, p in part.parameters.items()}
    _check_gathered(model, parameters)
    squares = ShardedSquares(model, unsupported, ranks, parameters)
    handles = [part.hook(squares.reduce) for part in parts if part.parameters]
    try:
        yield squares
    except Exception:
        with suppress(Exception):  # as torch, for a pass that did not end
            model.reset_iter_state()
        raise
    finally:
        for handle in handles:
            handle.remove()
        reshard(model)


class ShardedSquares(PerExampleSquares):
    """sum_i (gradient of v_i . outputs_i)^2 over the examples of all ranks.

    A rank adds the squares of its own examples until the backward pass of the module
    that FSDP gathers is over. They are then added up over the ranks, each of which
    keeps its shard of the sum: `sums` has DTensors placed as the parameters.
    """

    def __init__(
        self,
        model: nn.Module,
        unsupported: str,
        ranks: Ranks,
        parameters: Mapping[str, Tensor],
    ):
        """parameters: the trainable ones by name, as operations use them."""
        self._common = CommonPasses(parameters, ranks, lambda: self.reduce(parameters))
        super().__init__(model, unsupported, self._common)
        self._ranks = ranks
        self._own: dict[str, Tensor] = {}  # this rank's squares, not yet added up

    def add(self, outputs_of: OutputsOf, batch: Batch, directions_of: Any) -> None:
        self._common.stand_in(outputs_of, batch.rows(0, 1))
        super().add(outputs_of, batch, directions_of)

    def finish(self, outputs_of: OutputsOf, example: Batch) -> None:
        """Completes the sums, once all batches of this rank are added."""
        self._common.stand_in(outputs_of, example)
        self._common.finish()

    def _sum(self, name: str) -> Tensor:
        if name not in self._own:
            self._own[name] = accumulator(self._passes.parameters[name])
        return self._own[name]

    @torch.no_grad()
    def reduce(self, names: Collection[str]) -> None:
        """Adds up the squares of these parameters that any rank has."""
        from torch.distributed.tensor import DTensor, Partial

        device = self.sums[next(iter(names))].device
        present = self._ranks.any([name in self._own for name in names], device)
        for name, is_present in zip(names, present, strict=True):
            if is_present:
                total: Any = self.sums[name]
                mesh = total.device_mesh
                own = self._sum(name)
                del self._own[name]
                parts = DTensor.from_local(own, mesh, [Partial()] * mesh.ndim)
                total += parts.redistribute(placements=total.placements)


class _Part:
    """A module whose parameters FSDP gathers together.

    Attributes:
        parameters: the trainable ones by their names in the model, as the module's
            operations use them: torch fills and empties the same tensors again.
    """

    def __init__(self, module: Any, model: nn.Module):
        self._module = module
        trainable = trainable_parameters(model)
        module.unshard()
        gathered = dict(parameters_inside(model))
        module.reshard()
        self.parameters = {
            name: gathered[name]
            for name, p in trainable.items()
            if gathered[name] is not p
        }

    def hook(self, receive: Callable[[Collection[str]], None]) -> Any:
        """Calls receive(names) in backward passes, when the module's part is over."""

        def before(module, args, kwargs):
            if not torch.is_grad_enabled():
                return None
            leaves, tree = tree_flatten((args, kwargs))
            places = [
                i
                for i, x in enumerate(leaves)
                if isinstance(x, Tensor) and x.requires_grad
            ]
            if not places:
                return None
            inputs = _End.apply(
                lambda: receive(self.parameters), *(leaves[i] for i in places)
            )
            for i, x in zip(places, inputs, strict=True):
                leaves[i] = x
            return tree_unflatten(leaves, tree)

        # Before FSDP's own, so that it has freed the module's parameters.
        return self._module.register_forward_pre_hook(
            before, prepend=True, with_kwargs=True
        )


class _End(torch.autograd.Function):
    """The inputs of a module; calls a function when their gradients are complete."""

    @staticmethod
    def forward(ctx, call, *inputs):
        ctx.call = call
        return inputs

    @staticmethod
    def backward(ctx, *gradients):
        ctx.call()
        return None, *gradients


def _modules(model: nn.Module) -> list[Any]:
    """The modules whose parameters FSDP gathers together."""
    from torch.distributed.fsdp import FSDPModule

    return [x for x in model.modules() if isinstance(x, FSDPModule)]


def _check_gathered(model: nn.Module, gathered: Mapping[str, Tensor]) -> None:
    for name, p in trainable_parameters(model).items():
        if is_shard(gathered.get(name, p)):
            raise InputError(
                f"{name} is sharded by tensor parallelism, too: use fully_shard alone"
            )
        if gathered[name].dtype != p.dtype:
            raise InputError(
                f"fully_shard has a MixedPrecisionPolicy that gathers {name} as "
                f"{gathered[name].dtype}: omit param_dtype, and pass dtype for autocast"
            )


def _groups(model: nn.Module, ranks: Ranks) -> set[Any]:
    """The process groups of the meshes that the parameters are sharded over."""
    groups: set[Any] = set()
    parameters: dict[str, Any] = dict(trainable_parameters(model))
    for name, p in parameters.items():
        if not is_shard(p):
            raise InputError(
                f"{name} is not sharded, but the model is: exclude no trainable "
                "parameter from fully_shard"
            )
        found, expected = p.device_mesh.mesh.flatten().tolist(), ranks.global_ranks()
        if sorted(found) != sorted(expected):
            raise InputError(
                f"the model is sharded over the ranks {found}, but process_group has "
                f"the ranks {expected}: pass the group of the model's ranks"
            )
        groups.update(p.device_mesh.get_all_groups())
    return groups
