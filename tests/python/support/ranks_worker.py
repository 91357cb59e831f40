"""One process of test_ranks."""

import os
import sys
from datetime import timedelta
from pathlib import Path

import merganser
import ranks_cases
import torch
from fisher_checkpoints import Stopped
from merganser import Error, InputError
from merganser._fisher import partial_sums
from ranks_cases import moved, plain, vectors
from torch import distributed
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset


def values(folder, group, rank):
    found = ranks_cases.found(group)
    found["resumed"] = ranks_cases.diagonal(resumed(folder, group))
    torch.save(found, folder / f"rank{rank}.pt")


def resumed(folder, group):
    """A run that stops on all ranks after the first batches, and goes on."""
    partial_sums.SECONDS = 0
    options = {"checkpoint": folder / "sums.pt", "process_group": group}

    def stop(done, *_):
        if done > 10:
            raise Stopped

    try:
        merganser.fisher(plain(), vectors(), "mc", progress=stop, **options)
    except Stopped:
        return merganser.fisher(plain(), vectors(), "mc", **options)
    raise AssertionError("not stopped")


def raising(batches):
    yield from batches
    raise ValueError("the disk is gone")


def refused(folder, group, rank):
    """Each case must end on all ranks, so that the next one can begin."""
    inputs, labels = map(torch.cat, zip(*vectors(), strict=True))
    data = TensorDataset(inputs, labels)
    changed = vectors()
    changed[-1] = (changed[-1][0] + rank, changed[-1][1])
    split = DistributedSampler(data, 2, rank)
    generator = torch.Generator().manual_seed(rank)
    frozen = plain()
    frozen[0].bias.requires_grad_(rank == 0)
    own = raising(vectors()[:3]) if rank == 1 else vectors()
    cases = {
        "sampler": (plain(), DataLoader(data, 4, sampler=split), {}),
        "shuffled": (
            plain(),
            DataLoader(data, 4, shuffle=True, generator=generator),
            {},
        ),
        "other value": (plain(), changed, {}),
        "fewer": (plain(), vectors()[: 6 - rank], {}),
        "empty": (plain(), [] if rank else vectors(), {}),
        "seed": (plain(), vectors(), {"seed": rank}),
        "limit": (plain(), vectors(), {"limit": 5 + rank}),
        "weights": (moved(plain(), rank), vectors(), {}),
        "frozen": (frozen, vectors(), {}),
        "raises": (plain(), own, {}),
    }
    messages = {}
    for name, (model, batches, options) in cases.items():
        try:
            merganser.fisher(model, batches, process_group=group, **options)
        except Exception as error:
            messages[name] = (type(error).__name__, str(error))
    for name, estimate in {
        "gram": lambda: merganser.gram(plain(), changed, process_group=group),
        "subspace": lambda: merganser.subspace_fisher(
            plain(),
            [moved(plain(), 1 + rank)],
            [vectors()],
            vectors(),
            process_group=group,
        ),
    }.items():
        try:
            estimate()
        except (Error, InputError) as error:
            messages[name] = (type(error).__name__, str(error))
    torch.save(messages, folder / f"rank{rank}.pt")


def dying(folder, group, rank):
    """Rank 1 ends without a word at the fourth batch."""

    def batches():
        for number, batch in enumerate(vectors()):
            if rank == 1 and number == 3:
                (folder / "died").touch()
                os._exit(7)
            yield batch

    merganser.fisher(plain(), batches(), process_group=group)


def main(folder, what):
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", timeout=timedelta(seconds=30))
    globals()[what](Path(folder), distributed.group.WORLD, distributed.get_rank())
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
