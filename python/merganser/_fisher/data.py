"""Data sets in the forms users have: loaders, lists of batches, examples."""

import hashlib
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, DistributedSampler, IterableDataset

from .._C import InputError, draw_subset
from .._common.arguments import check_count
from .._common.wrappers import is_shard, parameters_inside
from .batches import Batch, make_batch, size_of, split_item
from .caller import warn
from .model_state import add_tensors, tensor_hashes
from .ranks import Ranks


class Data:
    """Examples of a data set in batches: all, or at most `limit`.

    Data with positions (a list of batches, a DataLoader of a data set with a length, a
    data set with a collator) give the subset that the executable draws with `seed`;
    others give their first examples. Each rank takes every `ranks.size`-th batch.
    """

    def __init__(
        self,
        data: Iterable,
        model: nn.Module,
        *,
        collator: Callable | None,
        batch_size: int,
        limit: int | None,
        seed: int,
        num_examples: int | None,
        label: str = "data",
        ranks: Ranks | None = None,
    ):
        """num_examples: size of the data set, `limit` aside; None: found from data.

        label: names the data in errors. ranks: that share the batches; None: one.
        """
        check_count("batch_size", batch_size)
        check_count("seed", seed, minimum=0)
        for name, value in (("limit", limit), ("num_examples", num_examples)):
            if value is not None:
                check_count(name, value)
        self._batches = _make_loader(data, collator, batch_size, model)
        self._total = _count_examples(self._batches)
        self._limit = limit
        self._num_examples = num_examples
        self._label = label
        self.used = 0  # examples read, also those of other ranks' batches
        self.first: Batch | None = None  # of any rank: its first example
        self.ranks = ranks or Ranks()
        self._digest = hashlib.sha256()  # of all batches read
        self._facts = {}  # that must be the same on all ranks; compared once
        if self.ranks.size > 1:
            _check_sampler(self._batches, label)
            self._facts = {"limit": limit, "seed": seed, **_facts_of(model)}
        if limit is not None and num_examples is None and self._total is None:
            raise InputError(
                "with limit, data of unknown length need num_examples: a merge scales "
                "by the total number of examples"
            )
        # Positions of the sample; None: the first examples.
        self._sample: Tensor | None = None
        self._is_sampled = False  # the batches have the sample only
        if limit is None:
            return
        if self._total is None:
            if num_examples is None or limit < num_examples:
                _warn_of_first(limit)
        elif limit < self._total:
            self._draw(self._total, limit, seed)

    def _draw(self, total: int, limit: int, seed: int) -> None:
        self._is_sampled = _has_positions(self._batches)
        if not self._is_sampled and not isinstance(self._batches, list | tuple):
            _warn_of_first(limit)
            return
        sample = draw_subset(total, limit, seed)
        if self._is_sampled:
            self._batches = _restricted(cast(DataLoader, self._batches), sample)
        self._sample = torch.tensor(sample)

    def read(self, device: torch.device, progress: Callable | None) -> Iterator[Batch]:
        """Yields the batches of this rank on `device`; calls `progress` after each of
        any rank.

        Examples are numbered in the order in which they come, unless a batch has its
        own "index".
        """
        limit = self._limit
        expected = self.total or limit
        seen = self.used = number = 0
        self._digest = hashlib.sha256()
        for item in self._batches:
            args, kwargs = split_item(item)
            size = size_of(args, kwargs)
            rows, indices = self._choose(seen, size)
            self._compare(args, kwargs)
            seen += size
            if len(indices) == 0:
                continue
            if self.first is None:
                self.first = make_batch(
                    args, kwargs, size, slice(0, 1), indices[:1], device, before=0
                )
            if self.ranks.takes(number):
                yield make_batch(
                    args, kwargs, size, rows, indices, device, before=self.used
                )
            number += 1
            self.used += len(indices)
            if progress is not None:
                progress(self.used, expected, "")
            if self.used == limit:
                return
        if self.used == 0:
            raise InputError(f"{self._label} has no examples")

    def add_up(self, sums: dict[str, Tensor], device: torch.device) -> None:
        """Adds the sums of all ranks, in place, once the data are read (Ranks.add_up).

        Raises InputError if the ranks have read different data.
        """
        self.check_read()
        self.ranks.add_up(sums, device)

    def check_read(self) -> None:
        """Raises InputError if the ranks have read different data."""
        if self.ranks.size > 1:
            self.ranks.check_same(
                {
                    f"the number of examples in {self._label}": self.used,
                    f"the examples in {self._label}": self._digest.hexdigest(),
                }
            )

    def _compare(self, args: tuple, kwargs: dict) -> None:
        """Compares the first batch of all ranks, and hashes the others for the end."""
        if self.ranks.size == 1:
            return
        add_tensors(self._digest, (args, kwargs))
        if self._facts:
            first = f"the first batch of {self._label}"
            self.ranks.check_same(self._facts | {first: self._digest.hexdigest()})
            self._facts = {}

    def _choose(self, seen: int, size: int) -> tuple[slice | Tensor, Tensor]:
        """The rows to take from a batch after `seen` examples, and their positions."""
        if self._sample is None:
            keep = size if self._limit is None else min(size, self._limit - self.used)
            return slice(0, keep), torch.arange(seen, seen + keep)
        if self._is_sampled:
            return slice(0, size), self._sample[seen : seen + size]
        indices = self._sample[(self._sample >= seen) & (self._sample < seen + size)]
        return indices - seen, indices

    @property
    def total(self) -> int | None:
        """The number of examples to read, if it is known before."""
        if self._total is None or self._limit is None:
            return self._total
        return min(self._limit, self._total)

    @property
    def num_examples(self) -> int:
        """N, by which a merge scales; known once all data are read."""
        return self._num_examples or self._total or self.used


def _check_sampler(batches: Any, label: str) -> None:
    if isinstance(getattr(batches, "sampler", None), DistributedSampler):
        raise InputError(
            f"{label} has a DistributedSampler, but with process_group every rank "
            "reads all batches and takes its own: omit the sampler"
        )


def _facts_of(model: nn.Module) -> dict[str, Any]:
    parameters = dict(parameters_inside(model))
    # Shards are those of one model.
    own = {n: p for n, p in parameters.items() if not is_shard(p)}
    return {
        "the model's parameters": tensor_hashes(own),
        "the trainable parameters": [
            n for n, p in parameters.items() if p.requires_grad
        ],
    }


def _warn_of_first(limit: int) -> None:
    warn(
        f"limit takes the first {limit} examples of data without positions, such as a "
        "generator; shuffle data sorted by label, or pass a DataLoader of a data set"
    )


def _make_loader(
    data: Any, collator: Callable | None, batch_size: int, model: nn.Module
) -> Iterable:
    """Batches: `data` itself, or its examples put together by a collator."""
    is_iterable = hasattr(data, "__iter__") or hasattr(data, "__getitem__")
    if not is_iterable or isinstance(data, Tensor | Mapping | str):
        raise InputError(
            "data must be a DataLoader or another iterable of batches, not "
            f"{type(data).__name__}: pass a single batch as a list of one"
        )
    columns = getattr(data, "column_names", None)
    if collator is None:
        if columns is not None:
            raise InputError(
                "a datasets.Dataset needs a collator, for example transformers' "
                "DataCollatorWithPadding(tokenizer)"
            )
        return data
    if isinstance(data, DataLoader):
        raise InputError("a DataLoader has its own collate_fn: omit collator")
    if columns is not None:
        # Drops columns that the model does not take: no collator can pad a text.
        wanted = _parameters(model) | {"label", "label_ids", "labels", "index"}
        data = data.select_columns([name for name in columns if name in wanted])
    return DataLoader(data, batch_size=batch_size, collate_fn=collator)


def _has_positions(loader: Any) -> bool:
    """Returns whether a sampler of `loader` gives the data set's positions."""
    return (
        type(loader) is DataLoader  # a subclass may iterate otherwise
        and loader.batch_size is not None
        and not isinstance(loader.dataset, IterableDataset)
    )


def _restricted(loader: DataLoader, positions: list[int]) -> DataLoader:
    """A loader of the examples at these positions of `loader`'s order."""
    order = list(loader.sampler)
    return DataLoader(
        loader.dataset,
        loader.batch_size,
        sampler=[order[i] for i in positions],
        num_workers=loader.num_workers,
        collate_fn=loader.collate_fn,
        pin_memory=loader.pin_memory,
        timeout=loader.timeout,
        worker_init_fn=loader.worker_init_fn,
        multiprocessing_context=loader.multiprocessing_context,
        generator=loader.generator,
        prefetch_factor=loader.prefetch_factor,
    )


def _parameters(model: Any) -> set[str]:
    # PEFT's wrapper accepts any argument and passes it on.
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    return set(inspect.signature(inner.forward).parameters)


def _count_examples(data: Any) -> int | None:
    """The total number of examples, if known before reading."""
    if isinstance(data, DataLoader):
        if data.batch_size is None:  # a sampler of batches of any size
            return None
        try:
            count = len(cast(Sized, data.sampler))
        except TypeError:
            return None
        return count - count % data.batch_size if data.drop_last else count
    if isinstance(data, list | tuple):
        return sum(size_of(*split_item(item)) for item in data)
    return None
