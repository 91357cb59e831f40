"""The end of ranks that wait for one another in passes of a model, when one fails.

A rank that fails between two collectives of a pass cannot tell the others by a further
collective: they wait in one of the pass. It leaves its reason in the group's store and
closes its connections, which ends the others' collectives; they read the store.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING

import torch

from .._C import Error

if TYPE_CHECKING:
    from torch._C._distributed_c10d import Store
    from torch.distributed import ProcessGroup

SECONDS = 20.0  # for the other ranks to leave their reasons
_KEY = "merganser/ended"
_TAG = 7_302_583  # of messages that no rank sends


def end_together(groups: Sequence[ProcessGroup], error: Exception) -> Exception:
    """Ends all ranks' collectives in these groups after an error of this rank in one.

    The first group has all ranks, and its number of a rank names the rank.
    Returns the error if it is this rank's own, else one that names the rank that failed
    first.
    """
    from torch import distributed

    group = groups[0]
    rank, size = group.rank(), group.size()
    is_own = _is_own(error)
    try:
        store = group.get_group_store()
        order = store.add(f"{_KEY}/order", 1)
        record = [is_own, order, f"{type(error).__name__}: {error}"]
        store.set(f"{_KEY}/{rank}", json.dumps(record))
        for each in groups:
            _close(each)
        found = _records(store, size)
        store.add(f"{_KEY}/read", 1)
        if rank == 0:  # its process may keep the store, which the others read
            _wait(lambda: store.add(f"{_KEY}/read", 0) == size, SECONDS / 4)
    except distributed.DistError:
        found = None
    if is_own:
        return error
    lost = f"rank {rank} of process_group lost"
    if found is None:
        return Error(
            f"{lost} the process that keeps the group's store, which is rank 0 without "
            f"torchrun: {error}"
        )
    missing = [str(r) for r in range(size) if r not in found]
    own = {r: record for r, record in found.items() if record[0]}
    if missing and not own:
        return Error(
            f"{lost} rank {', '.join(missing)}, which ended or did not answer for "
            f"{SECONDS:g} seconds: {error}"
        )
    first, (_, _, text) = min((own or found).items(), key=lambda item: item[1][1])
    if first == rank:
        return error
    return Error(f"rank {first} of process_group failed: {text}")


def _is_own(error: Exception) -> bool:
    """False if the error may be that of a collective which another rank left."""
    from torch.distributed import DistError

    return type(error) is not RuntimeError and not isinstance(error, DistError)


def _close(group: ProcessGroup) -> None:
    """Closes this rank's connections: those of Gloo, where a receive times out."""
    for other in range(group.size()):
        if other != group.rank():
            with suppress(RuntimeError):
                received = group.recv([torch.empty(1)], other, _TAG)
                received.wait(timedelta(milliseconds=1))


def _records(store: Store, size: int) -> dict[int, tuple]:
    """What the ranks have left: all, or those until one with an error of its own."""
    found: dict[int, tuple] = {}

    def enough() -> bool:
        for rank in range(size):
            if rank not in found and store.check([f"{_KEY}/{rank}"]):
                found[rank] = tuple(json.loads(store.get(f"{_KEY}/{rank}")))
        return len(found) == size or any(own for own, _, _ in found.values())

    _wait(enough, SECONDS)
    return found


def _wait(done: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not done() and time.monotonic() < end:
        time.sleep(0.02)
