"""Gram matrices of the inputs of a model's linear layers."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from . import _C
from ._arguments import check_autocast
from ._C import Error, InputError
from ._fisher.batches import Data
from ._fisher.gram_sums import GramSums
from ._fisher.model_state import device_of, eval_mode, moved, uncompiled
from .fisher_result import GRAM


@dataclass(eq=False, repr=False)
class GramResult(Mapping[str, Tensor]):
    """Mean Gram matrices: a mapping from names of weights (out, in) to (in, in).

    Attributes:
        matrices: the mean over examples of sum_tokens a a^T, float32 or wider.
        num_examples: N of the data set, what a merge scales the mean by.
        num_examples_used: how many of them it is the mean over.
        base_model_hash: of the model's tensors; empty: unknown.
    """

    matrices: dict[str, Tensor]
    num_examples: int
    num_examples_used: int
    base_model_hash: str = ""

    def save(self, path: str | os.PathLike) -> None:
        """Writes the file that recipes name as `gram`, whole or not at all.

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
        """Reads a file that `save` wrote. Raises InputError where it is not one."""
        tensors, metadata = _C.read_fisher(path)
        if metadata.estimator != GRAM:
            raise InputError(f"{path} has a Fisher, not Gram matrices")
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
    dtype: torch.dtype | None = None,
    device: str | torch.device | None = None,
    collator: Callable | None = None,
    batch_size: int = 16,
    num_examples: int | None = None,
    model_path: str | os.PathLike | None = None,
    progress: Callable[[int, int | None, str], None] | None = None,
) -> GramResult:
    """Collects what `regmean` and `block_gradient_matching` need beside the weights.

    G = 1/N sum_i sum_l a_il a_il^T over the tokens l of example i, a (in,) the input of
    a linear layer (torch.nn.functional.linear with a parameter of the model), without
    tokens that the attention mask hides. The model runs forward only, in eval mode, and
    is left as it was. Which rows of an input are an example's is seen by running the
    first batch again without its last example; which mask hides its tokens, by running
    the first batch with hidden tokens again without the last token. A warning names the
    matrices that have no G, which a merge then treats element by element: those used
    otherwise (the weights of transformers' Conv1D, a tied embedding), and those whose
    inputs' rows, or what hides them, cannot be told.

    Args:
        model: any module.
        data: batches, or examples with a `collator`; see `merganser.fisher`.
        limit: use the first `limit` examples only.
        dtype: bfloat16 or float16: run under autocast to this type. Sums are float32
            or wider in any case.
        device: where to run: the model is moved there, and back afterwards.
        collator: puts a list of `batch_size` examples of `data` together.
        batch_size: see `collator`.
        num_examples: N, what a merge scales the mean by. By default the examples of
            `data`, including those beyond `limit`.
        model_path: the folder or file that `model` was loaded from or saved to; its
            hash goes into the result, and a recipe refuses Gram matrices of other
            weights.
        progress: called after each batch with the examples done, how many there
            will be (None: unknown) and an empty text.

    Raises:
        InputError: arguments or data that do not fit.
        Error: a matrix that is not finite; names the parameter.

    Source: Jin et al., arXiv 2212.09849, section 3; docs/method.md, section 2.
    """
    check_autocast(dtype)
    examples = Data(
        data,
        model,
        collator=collator,
        batch_size=batch_size,
        limit=limit,
        num_examples=num_examples,
    )
    model_hash = "" if model_path is None else _C.content_hash(model_path)
    with ExitStack() as stack:
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
        matrices = sums.finish()
    if not matrices:
        raise InputError("the model has no linear layer with a Gram matrix")
    for name, matrix in matrices.items():
        matrix.div_(examples.used)
        if not matrix.isfinite().all():
            raise Error(f"the Gram matrix of {name} is not finite")
    return GramResult(
        {name: matrix.to(home) for name, matrix in matrices.items()},
        num_examples=examples.num_examples,
        num_examples_used=examples.used,
        base_model_hash=model_hash,
    )
