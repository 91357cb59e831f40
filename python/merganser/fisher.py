"""The diagonal Fisher of a PyTorch model, correct per example."""

import os
from collections.abc import Callable, Iterable
from contextlib import ExitStack

import torch
from torch import Tensor, nn

from ._arguments import check_autocast, check_choice, check_count
from ._C import Error, InputError, content_hash
from ._fisher.batch_mean import BatchMeanSquares
from ._fisher.batches import Batch, Data
from ._fisher.model_state import (
    all_trainable,
    autocast_dtype,
    code_of,
    device_of,
    eval_mode,
    moved,
    no_silent_checkpoints,
    uncompiled,
    weights_hash,
)
from ._fisher.partial_sums import PartialSums
from ._fisher.per_example import PerExampleSquares
from ._losses.choice import find_loss, guess_loss
from ._losses.loss import Loss
from .fisher_result import FisherResult

ESTIMATORS = ("exact", "mc", "empirical", "mc_batch")


def fisher(
    model: nn.Module,
    data: Iterable,
    estimator: str = "exact",
    *,
    loss: str | Callable = "auto",
    samples: int = 1,
    limit: int | None = None,
    seed: int = 0,
    dtype: torch.dtype | None = None,
    device: str | torch.device | None = None,
    trainable_only: bool = True,
    unsupported: str = "per_example",
    collator: Callable | None = None,
    batch_size: int = 16,
    num_examples: int | None = None,
    model_path: str | os.PathLike | None = None,
    checkpoint: str | os.PathLike | None = None,
    progress: Callable[[int, int | None, str], None] | None = None,
) -> FisherResult:
    """Estimates the diagonal Fisher of a model's parameters.

    F = 1/N sum_i E_{y ~ p(.|x_i)} [ (d log p(y | x_i) / d theta)^2 ], the squares
    taken per example, at the cost of about one backward pass and without a copy of
    the gradient per example ("mc_batch": per batch). The model runs in eval mode; it
    is not changed, and its modes, hooks and everything else are afterwards as they
    were, also if the call fails.

    Args:
        model: any module. What it returns is read as a tensor of outputs with a row
            per example: itself, its `.logits`, or the first of a tuple.
        data: batches: a DataLoader or another iterable of dicts (the model's keyword
            arguments, "labels" (B, ...) for "empirical", "index" (B,) if the examples
            have numbers of their own), of pairs (inputs, labels) with inputs a tensor
            or such a dict, or of tensors. With `collator`: examples, such as a
            datasets.Dataset.
        estimator: "exact" (the expectation over labels: K - 1 backward passes for K
            classes, K for K values or independent labels), "mc" (`samples` labels
            drawn from the model per example), "empirical" (the data's labels) or
            "mc_batch" (one plain backward pass per sample: B times the squared batch
            mean; unbiased too, with a higher variance).
        loss: what the outputs say about labels. "classification": softmax of logits
            (B, K), or of (B, L, K), where an example is a sequence of independent
            labels and those that are -100 (without labels: that the attention mask
            hides) do not count. "causal_lm": the same where position t predicts token
            t + 1; an example is a sequence, and sampled tokens come from the model's
            own distribution at each position, given the text. "multilabel": (B, K)
            logits of independent labels 0 or 1. "regression": (B,) or (B, K) means of
            Gaussians of variance 1. A function of (the model's output, labels) that
            returns (B,) negative log-likelihoods, for "empirical". "auto": by the
            model's config and class, then by the outputs' shape.
        samples: labels drawn per example, for "mc" and "mc_batch".
        limit: use the first `limit` examples only. Data sorted by label must be
            shuffled before.
        seed: of the draws, at least 0. A label depends on the model's probabilities,
            on `seed` and on the example's number only.
        dtype: bfloat16 or float16: run under autocast to this type. Sums are float32
            or wider in any case.
        device: where to run: the model is moved there, and back afterwards. By
            default where its first parameter is.
        trainable_only: leave out frozen parameters.
        unsupported: what happens to a parameter that is used in a way without a rule
            for its per-example gradient: "per_example" computes it with single
            examples, with a warning that names it, "error" refuses.
        collator: puts a list of `batch_size` examples of `data` together.
        batch_size: see `collator`.
        num_examples: N, what a merge scales the mean by (H = N F). By default the
            examples of `data`, including those beyond `limit`.
        model_path: the folder or file that `model` was loaded from or saved to; its
            hash goes into the result, and a recipe refuses a Fisher of other weights
            (`merge` in memory does not check).
        checkpoint: a file that keeps the sums of what is done, about once a minute. If
            it is there, the run goes on from it, with the same result; the data must
            come in the same order. It stays after the run.
        progress: called after each batch with the examples done, how many there
            will be (None: unknown) and an empty text.

    Returns:
        A FisherResult: a mapping from parameter names (tied ones under their first
        name) to means F, float32 or wider, in the parameters' shapes. A parameter from
        which no gradient comes to the outputs has a Fisher of zero.

    Raises:
        InputError: arguments or data that do not fit; says which.
        NotImplementedError: unsupported="error" and a parameter without a rule; names
            it.
        Error: a Fisher that is not finite; names the parameter.

    Source: Daheim et al., arXiv 2310.12808, section 3; docs/method.md, section 3.
    """
    _check_numbers(estimator, samples, seed)
    _check_choices(estimator, loss, dtype, unsupported)
    examples = Data(
        data,
        model,
        collator=collator,
        batch_size=batch_size,
        limit=limit,
        num_examples=num_examples,
    )
    model_hash = "" if model_path is None else content_hash(model_path)
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        stack.enter_context(no_silent_checkpoints())
        stack.enter_context(uncompiled())
        stack.enter_context(eval_mode(model))
        home = device_of(model)
        if device is not None and torch.device(device) != home:
            stack.enter_context(moved(model, torch.device(device), home))
        if not trainable_only:
            stack.enter_context(all_trainable(model))
        squares = (
            BatchMeanSquares(model)
            if estimator == "mc_batch"
            else PerExampleSquares(model, unsupported)
        )
        if not squares.sums:
            raise InputError("the model has no trainable parameter")
        pass_over = _Pass(model, loss, estimator, samples, seed, dtype)
        partial = None
        if checkpoint is not None:
            run = {
                "estimator": estimator,
                "loss": loss if isinstance(loss, str) else code_of(loss),
                "samples": samples,
                "seed": seed,
                "dtype": str(dtype or autocast_dtype(home)),
                "the model's weights": weights_hash(model),
            }
            partial = PartialSums(checkpoint, squares.sums, run)
        for batch in examples.read(device_of(model), progress):
            if partial is None or not partial.has(batch):
                pass_over.add_to(squares, batch)
            if partial is not None:
                partial.write()
        if partial is not None:
            partial.finish()

    for name, sum_of_squares in squares.sums.items():
        sum_of_squares.div_(examples.used)
        # No square is negative, so that the largest tells; isfinite would take as
        # much memory again.
        if sum_of_squares.numel() and not sum_of_squares.amax().isfinite():
            raise Error(f"the Fisher of {name} is not finite")
    return FisherResult(
        {name: f.to(home) for name, f in squares.sums.items()},
        estimator=estimator,
        num_examples=examples.num_examples,
        num_examples_used=examples.used,
        samples=samples,
        seed=seed,
        labels="data" if estimator == "empirical" else "model",
        base_model_hash=model_hash,
    )


class _Pass:
    """How a batch becomes outputs, and outputs become directions."""

    def __init__(self, model, loss, estimator, samples, seed, dtype):
        self._model = model
        self._loss: Loss | None = find_loss(loss, model)
        self._estimator = estimator
        self._samples = samples
        self._seed = seed
        self._dtype = dtype

    def add_to(self, squares, batch: Batch) -> None:
        squares.add(self._outputs, batch, self._directions)

    def _outputs(self, batch: Batch) -> Tensor:
        if self._dtype is None:
            raw = self._model(*batch.args, **batch.kwargs)
        else:
            with torch.autocast(batch.indices.device.type, self._dtype):
                raw = self._model(*batch.args, **batch.kwargs)
        if self._loss is None:
            self._loss = guess_loss(raw, batch)
        return self._loss.outputs(raw, batch)

    def _directions(self, outputs: Tensor, batch: Batch) -> Iterable[Tensor]:
        loss = self._loss
        if self._estimator == "exact":
            yield from loss.exact(outputs, batch)
        elif self._estimator == "empirical":
            yield loss.given(outputs, batch)
        else:
            # One at a time: together they could fill the memory.
            for sample in range(self._samples):
                v = loss.sampled(outputs, batch, self._seed, sample)
                yield v.div_(self._samples**0.5)


def _check_numbers(estimator, samples, seed) -> None:
    check_choice("estimator", estimator, ESTIMATORS)
    check_count("samples", samples)
    check_count("seed", seed, least=0)
    if samples != 1 and not estimator.startswith("mc"):
        raise InputError(f"samples is for mc and mc_batch, not for {estimator}")


def _check_choices(estimator, loss, dtype, unsupported) -> None:
    if callable(loss) and estimator != "empirical":
        raise InputError(
            f"estimator='{estimator}' needs the distribution of the labels, which a "
            "function as loss does not tell: use 'empirical'"
        )
    check_autocast(dtype)
    check_choice("unsupported", unsupported, ("per_example", "error"))
