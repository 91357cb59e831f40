"""One process of test_sharded."""

import os
import sys
import time
import weakref
from datetime import timedelta
from pathlib import Path

import merganser
import torch
from merganser import Error, InputError
from merganser._fisher import sharded as sharded_squares
from ranks_cases import vectors
from sharded_cases import cases, estimate, mlp, sharded
from torch import distributed, nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor


def state_of(model):
    """What a call must leave as it was."""
    return {
        name: (p.to_local().clone(), None if p.grad is None else p.grad.to_local())
        for name, p in model.named_parameters()
        if isinstance(p, DTensor)
    }


def values(folder, group, rank):
    found = {}
    for name, case in cases(group.size()).items():
        model = case.shard(case.make().to(case.dtype))
        before = state_of(model)
        hooks = [len(x._forward_pre_hooks) for x in model.modules()]
        result = estimate(model, case.data, group, **case.options)
        after = state_of(model)
        assert len(after) == len(list(model.parameters())), name
        for tensor, state in before.items():
            for old, new in zip(state, after[tensor], strict=True):
                assert old is new or torch.equal(old, new), (name, tensor)
        assert hooks == [len(x._forward_pre_hooks) for x in model.modules()], name
        result.save(folder / f"{name}.safetensors")
        shards = {n: (f.placements, f.to_local().numel()) for n, f in result.items()}
        for tensor, p in model.named_parameters():
            if tensor in shards:
                assert shards[tensor] == (p.placements, p.to_local().numel()), name
        found[name] = (
            {n: f.full_tensor() for n, f in result.items()},
            (result.num_examples, result.num_examples_used),
            result.tensor_hashes,
        )
    torch.save(found, folder / f"rank{rank}.pt")


def memory(folder, group, rank):
    """The maximum number of values of squares that are not yet added up."""
    sizes, peak = [], 0
    original = sharded_squares.accumulator

    def accumulator(parameter):
        nonlocal peak
        total = original(parameter)
        sizes.append(total.numel())
        weakref.finalize(total, sizes.remove, total.numel())
        peak = max(peak, sum(sizes))
        return total

    sharded_squares.accumulator = accumulator
    torch.manual_seed(3)
    model = nn.Sequential(*(nn.Linear(16, 16) for _ in range(6)), nn.Linear(16, 3))
    for layer in model[:-1]:
        fully_shard(layer)
    data = [(torch.randn(4, 16), torch.zeros(4).long()) for _ in range(4)]
    result = estimate(fully_shard(model), data, group)
    here = sum(f.to_local().numel() for f in result.values())
    torch.save((peak, here), folder / f"rank{rank}.pt")


class Failing(nn.Module):
    """Fails on rank 1 in its ninth forward pass."""

    def __init__(self, how, rank):
        super().__init__()
        self.how, self.rank, self.count = how, rank, 0

    def forward(self, x):
        self.count += 1
        if self.count != 9 or distributed.get_rank() != self.rank:
            return x
        if self.how == "raise":
            raise ValueError("the sky fell")
        if self.how == "die":
            os._exit(7)
        return x @ x if self.how == "shapes" else x  # a RuntimeError, as of collectives


def failing(folder, group, rank, how, who):
    """Rank `who` fails; the ranks that live write what they raise, and stay."""

    def data():
        for number, batch in enumerate(vectors()):
            if number == 4 and rank == int(who) and how == "data":
                raise ValueError("the disk is gone")
            yield batch

    torch.manual_seed(3)
    layer = nn.Sequential(nn.Linear(5, 6), Failing(how, int(who)))
    fully_shard(layer)
    model = fully_shard(nn.Sequential(layer, nn.Linear(6, 3)).double())
    start = time.monotonic()
    try:
        merganser.fisher(model, data(), process_group=group)
    except Exception as error:
        seconds = time.monotonic() - start
        whole = all(isinstance(p, DTensor) for p in model.parameters())
        message = (type(error).__name__, str(error), seconds, whole)
        torch.save(message, folder / f"part{rank}")
        (folder / f"part{rank}").rename(folder / f"rank{rank}.pt")
    expected = group.size() - (how == "die")
    while len(list(folder.glob("rank*.pt"))) < expected:
        if time.monotonic() > start + 100:
            raise TimeoutError
        time.sleep(0.1)
    os._exit(0)  # the group is broken


class Overflowing(nn.Linear):
    """The squares of its last row of weights are not finite."""

    def forward(self, x):
        return super().forward(x) * torch.tensor([1, 1e30])


def refused(folder, group, rank):
    model = sharded(mlp().double())
    own = [distributed.new_group([r]) for r in range(group.size())][rank]
    infinite = fully_shard(Overflowing(4, 2)), [torch.ones(3, 4)]
    messages = []
    for estimate_ in (
        lambda: merganser.gram(model, vectors(), process_group=group),
        lambda: merganser.subspace_fisher(model, [model], [vectors()], vectors()),
        lambda: merganser.fisher(model, vectors(), process_group=own),
        lambda: estimate(model, vectors(), group).save("/nowhere/x.safetensors"),
        lambda: estimate(*infinite, group, loss="regression"),
    ):
        try:
            estimate_()
        except (Error, InputError) as error:
            messages.append((type(error).__name__, str(error)))
    torch.save(messages, folder / f"rank{rank}.pt")


def main(folder, what, *arguments):
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", timeout=timedelta(minutes=10))
    rank = distributed.get_rank()
    globals()[what](Path(folder), distributed.group.WORLD, rank, *arguments)
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
