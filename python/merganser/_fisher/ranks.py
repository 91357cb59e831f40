"""Processes of torch.distributed that share the examples of a data set."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .._C import Error, InputError
from .lost_ranks import end_together

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


@dataclass
class _Failure:
    """Sent in place of a value by a rank that has failed."""

    text: str


class Ranks:
    """The ranks of a process group; without a group a single one.

    Every rank reads all batches and takes each `size`-th. Collectives come in the same
    order on all ranks: `gather`, `add_up` and `passing`, which begin with one.
    """

    def __init__(self, group: ProcessGroup | None = None):
        self._group = group
        self.rank, self.size = 0, 1
        self._ended = False  # no other rank waits for this one
        self._joined: list[ProcessGroup] = []  # groups of `passing`, its own first
        if group is None:
            return
        from torch import distributed

        if not isinstance(group, distributed.ProcessGroup):
            raise InputError(
                "process_group must be a group of torch.distributed that this process "
                f"belongs to, such as torch.distributed.group.WORLD, not {group!r}"
            )
        self.rank = distributed.get_rank(group)
        self.size = distributed.get_world_size(group)

    def takes(self, number: int) -> bool:
        """Returns whether this rank takes the batch of this number."""
        return number % self.size == self.rank

    def file(self, path: str | os.PathLike) -> Path:
        """The file of this rank, where each has its own."""
        path = Path(path)
        if self.size == 1:
            return path
        return path.with_name(f"{path.name}.{self.rank}-of-{self.size}")

    @contextmanager
    def together(self) -> Iterator[None]:
        """Ends all ranks when one fails: the others raise Error, which names it, where
        they next gather."""
        self._ended = False
        try:
            yield
        except Exception as error:
            if not self._ended:
                with suppress(Exception):
                    self.gather(_Failure(f"{type(error).__name__}: {error}"))
            raise

    def gather(self, value: Any) -> list[Any]:
        """The value of each rank. Tensors in it must be on the CPU."""
        if self.size == 1:
            return [value]
        from torch import distributed

        found: list[Any] = [None] * self.size
        with self._others():
            distributed.all_gather_object(found, value, self._group)
        for rank, x in enumerate(found):
            if isinstance(x, _Failure):
                self._ended = True
                raise Error(f"rank {rank} of process_group failed: {x.text}")
        return found

    def check_same(self, facts: Mapping[str, Any]) -> None:
        """Raises InputError where these facts, named by the keys, differ."""
        first, *others = self.gather(facts)
        for rank, other in enumerate(others, 1):
            differing = [
                f"{name} ({other[name]}, expected {value})"
                if isinstance(value, int)
                else name
                for name, value in first.items()
                if other[name] != value
            ]
            if differing:
                self._ended = True  # all ranks raise this
                raise InputError(
                    f"rank {rank} of process_group differs from rank 0 in "
                    f"{', '.join(differing)}: pass the same arguments, model and "
                    "batches in the same order on every rank (no DistributedSampler, "
                    "no shuffling by different seeds)"
                )

    def join(self, groups: Iterable[ProcessGroup]) -> None:
        """From here on the ranks run passes together, with collectives of `groups`."""
        assert self._group is not None
        self._joined = list(dict.fromkeys([self._group, *groups]))

    @contextmanager
    def passing(self, need: Any = None) -> Iterator[list[Any]]:
        """Surrounds a pass of all ranks, in which collectives of any kind may come.

        Yields what each rank says it needs. Ranks that have not joined yield at once.
        """
        if not self._joined:
            yield [need]
            return
        needs = self.gather(need)
        with self._others():
            yield needs

    def any(self, flags: list[bool], device: torch.device) -> list[bool]:
        """Returns which flags are set on any rank. Call within `passing`."""
        from torch import distributed

        found = torch.tensor(flags, dtype=torch.int32, device=device)
        distributed.all_reduce(found, distributed.ReduceOp.MAX, self._group)
        return [bool(x) for x in found]

    def global_ranks(self) -> list[int]:
        from torch import distributed

        return distributed.get_process_group_ranks(self._group)

    def add_up(self, sums: dict[str, Tensor], device: torch.device) -> None:
        """Replaces tensors by their sums over the ranks, in place.

        A rank may lack some, or have no batch at all: its dict gets them, on `device`.
        """
        if self.size == 1:
            return
        from torch import distributed

        forms: dict[str, tuple] = {}
        for theirs in self.gather({n: (x.shape, x.dtype) for n, x in sums.items()}):
            forms |= theirs
        with self._others():
            for name in sorted(forms):
                shape, dtype = forms[name]
                if name not in sums:
                    sums[name] = torch.zeros(shape, dtype=dtype, device=device)
                distributed.all_reduce(sums[name], group=self._group)

    @contextmanager
    def _others(self) -> Iterator[None]:
        """Says what it means if a collective fails."""
        before, self._ended = self._ended, True
        try:
            yield
        except Exception as error:
            reason = self._reason(error)
            if reason is error:
                raise
            raise reason from error
        self._ended = before

    def _reason(self, error: Exception) -> Exception:
        if self._joined:
            return end_together(self._joined, error)
        if not isinstance(error, RuntimeError):
            return error
        return Error(
            f"rank {self.rank} of process_group lost another rank, which ended or did "
            f"not answer within the group's timeout: {error}"
        )
