"""Gram matrices of the inputs of a model's linear layers."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from . import _C
from ._C import InputError
from ._common.arguments import check_autocast
from ._common.sentence import is_sentence_model, names_in_files
from ._common.wrappers import check_whole, unwrapped
from ._fisher.data import Data
from ._fisher.gram_sums import GramSums
from ._fisher.model_state import device_of, eval_mode, moved, uncompiled
from ._fisher.ranks import Ranks
from ._fisher.stored import Stored
from .fisher_result import GRAM

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


@dataclass(eq=False, repr=False)
class GramResult(Mapping[str, Tensor]):
    """Mean Gram matrices: a mapping from names of weights (out, in) to (in, in).

    Attributes:
        matrices: the mean over examples of sum_tokens a a^T, float32 or wider.
        num_examples: N of the data set, by which a merge scales the mean.
        num_examples_used: number of examples that the mean is over.
        base_model_hash: hash of the model's tensors; empty: unknown.
    """

    matrices: dict[str, Tensor]
    num_examples: int
    num_examples_used: int
    base_model_hash: str = ""

    def save(self, path: str | os.PathLike) -> None:
        """Writes a file for the key `gram` of recipes, atomically.

        Format: docs/method.md, section 4.
        """
        metadata = _C.FisherMetadata(
            estimator=GRAM,
            num_examples=self.num_examples,
            num_examples_used=self.num_examples_used,
            samples=0,
            seed=0,
            labels="",
            base_model_hash=self.base_model_hash,
        )
        _C.write_fisher(path, self.matrices, metadata)

    @classmethod
    def load(cls, path: str | os.PathLike) -> GramResult:
        """Reads a file that `save` wrote. Raises InputError for any other file."""
        tensors, metadata = _C.read_fisher(path)
        if metadata.estimator != GRAM:
            raise InputError(f"{path} contains a Fisher; expected Gram matrices")
        return cls(
            tensors,
            num_examples=metadata.num_examples,
            num_examples_used=metadata.num_examples_used,
            base_model_hash=metadata.base_model_hash,
        )

    def __getitem__(self, name: str) -> Tensor:
        return self.matrices[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.matrices)

    def __len__(self) -> int:
        return len(self.matrices)

    def __repr__(self) -> str:
        return (
            f"GramResult({self.num_examples_used} of {self.num_examples} examples, "
            f"{len(self)} matrices)"
        )


def gram(
    model: nn.Module,
    data: Iterable,
    *,
    limit: int | None = None,
    seed: int = 0,
    dtype: torch.dtype | None = None,
    device: str | torch.device | None = None,
    collator: Callable | None = None,
    batch_size: int = 16,
    num_examples: int | None = None,
    model_path: str | os.PathLike | None = None,
    process_group: ProcessGroup | None = None,
    progress: Callable[[int, int | None, str], None] | None = None,
) -> GramResult:
    """Computes the Gram matrices for `regmean` and `block_gradient_matching`.

    G = 1/N sum_i sum_l a_il a_il^T over the tokens l of example i, except masked ones,
    with a (in,) the input of a linear layer (torch.nn.functional.linear with a
    parameter of the model). The model only runs forward, in eval mode, and is not
    changed. To assign the rows of inputs to examples, the first batch runs again
    without its last example; to assign masks to inputs, the first batch with masked
    tokens runs again without the last token. A warning lists weights that get no G,
    which a merge then treats elementwise: those with other uses (the weights of
    transformers' Conv1D, a tied embedding), and those with inputs whose rows or masks
    remain unknown.

    Args:
        model: any module. Wrappers are left out, as in `merganser.fisher`.
        data: batches, or examples with a `collator`; see `merganser.fisher`.
        limit: max number of examples: a random subset; see `merganser.fisher`.
        seed: random seed for that subset.
        dtype: bfloat16 or float16: run under autocast to this dtype. Sums are float32
            or wider.
        device: device to run on; the model is moved there, and back afterwards.
        collator: combines a list of `batch_size` examples of `data` into a batch.
        batch_size: examples per batch, with `collator`.
        num_examples: N, by which a merge scales the mean. By default the number of
            examples in `data`, including those beyond `limit`.
        model_path: directory or file that `model` was loaded from or saved to. Its
            hash is stored in the result, and recipes refuse Gram matrices of other
            weights. The matrices of a SentenceTransformer get the names of its files.
        process_group: group of torch.distributed whose ranks share the examples; see
            `merganser.fisher`.
        progress: called after each batch with the number of examples done, the total
            (None: unknown) and an empty text.

    Raises:
        InputError: invalid arguments or data.
        Error: a matrix that is not finite, with the parameter's name; another rank of
            `process_group` that failed, with its number, or ended.

    Source: Jin et al., arXiv 2212.09849, section 3; docs/method.md, section 2.
    """
    check_autocast(dtype)
    model = unwrapped(model)
    check_whole(model)
    ranks = Ranks(process_group)
    with ExitStack() as stack:
        stack.enter_context(ranks.together())
        examples = Data(
            data,
            model,
            collator=collator,
            batch_size=batch_size,
            limit=limit,
            seed=seed,
            num_examples=num_examples,
            ranks=ranks,
        )
        model_hash = "" if model_path is None else Stored.of(model_path, model).hash
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.no_grad())
        stack.enter_context(uncompiled())
        stack.enter_context(eval_mode(model))
        home = device_of(model)
        if device is not None and torch.device(device) != home:
            stack.enter_context(moved(model, torch.device(device), home))
        sums = GramSums(model, dtype)
        for batch in examples.read(device_of(model), progress):
            sums.add(batch)
        sums.add_up(examples)
        matrices = sums.means(examples.used)
    if not matrices:
        raise InputError("the model has no linear layer with a Gram matrix")
    matrices = {name: matrix.to(home) for name, matrix in matrices.items()}
    if model_path is not None and is_sentence_model(model):
        matrices = names_in_files(model, matrices)
    return GramResult(
        matrices,
        num_examples=examples.num_examples,
        num_examples_used=examples.used,
        base_model_hash=model_hash,
    )
