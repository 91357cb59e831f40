"""The diagonal Fisher of a PyTorch classifier, correct per example."""

import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import contextmanager
from numbers import Integral

import torch
from torch import Tensor, nn

from ._batch_mean import BatchMeanSquares
from ._batches import Batch, count_examples, read_batches
from ._C import Error, InputError, content_hash
from ._classification import exact_directions, label_direction, sampled_directions
from ._per_example import PerExampleSquares
from .fisher_result import FisherResult

ESTIMATORS = ("exact", "mc", "empirical", "mc_batch")


def fisher(
    model: nn.Module,
    data: Iterable,
    estimator: str = "exact",
    *,
    samples: int = 1,
    limit: int | None = None,
    seed: int = 0,
    num_examples: int | None = None,
    model_path: str | os.PathLike | None = None,
    progress: Callable[[int, int | None, str], None] | None = None,
) -> FisherResult:
    """Estimates the diagonal Fisher of a classifier's trainable parameters.

    F = 1/N sum_i E_{y ~ p(.|x_i)} [ (d log p(y | x_i) / d theta)^2 ], the squares
    taken per example, at the cost of about one backward pass and without a copy of
    the gradient per example ("mc_batch": per batch). The model runs in eval mode;
    its modes, hooks and everything else are afterwards as they were, also if the
    call fails.

    Args:
        model: returns logits (B, K), K >= 2: as a tensor, as `.logits` or first in
            a tuple. Trainable parameters must be those of nn.Linear, nn.Embedding
            and nn.LayerNorm layers that are called once per forward pass, as in
            BERT, RoBERTa and DistilBERT classifiers; "mc_batch" takes any model.
            A parameter from which no gradient comes to the logits (an unused layer,
            one behind detach) has a Fisher of zero.
        data: batches: a DataLoader or another iterable of dicts (the model's keyword
            arguments, "labels" (B,) for "empirical", "index" (B,) if the examples
            have numbers of their own), of pairs (inputs, labels) with inputs a tensor
            or such a dict, or of tensors.
        estimator: "exact" (the expectation over labels, K - 1 backward passes),
            "mc" (`samples` labels drawn from the model per example), "empirical"
            (the data's labels) or "mc_batch" (one plain backward pass per sample:
            B times the squared batch mean; unbiased too, with a higher variance).
        samples: labels drawn per example, for "mc" and "mc_batch".
        limit: use the first `limit` examples only. Data sorted by label must be
            shuffled before.
        seed: of the draws, at least 0. A label depends on the model's probabilities,
            on `seed` and on the example's number only.
        num_examples: N, what a merge scales the mean by (H = N F). By default the
            examples of `data`, including those beyond `limit`.
        model_path: the folder or file that `model` was loaded from or saved to; its
            hash goes into the result, and a recipe refuses a Fisher of other weights
            (`merge` in memory does not check).
        progress: called after each batch with the examples done, how many there
            will be (None: unknown) and an empty text.

    Returns:
        A FisherResult: a mapping from parameter names to means F, float32 or wider,
        in the parameters' shapes, on their devices.

    Raises:
        NotImplementedError: a trainable parameter whose per-example gradient would
            not be right (another kind of layer, tied, reparametrized, used several
            times); names it.
        InputError: arguments or data that do not fit; says which.
        Error: a Fisher that is not finite; names the parameter.

    Source: Daheim et al., arXiv 2310.12808, section 3; docs/method.md, section 3.
    """
    _check_arguments(estimator, samples, limit, num_examples, seed)
    total = count_examples(data)
    if limit is not None and num_examples is None and total is None:
        raise InputError(
            "with limit, data of unknown length need num_examples: a merge scales "
            "the Fisher by the number of examples in all"
        )
    model_hash = "" if model_path is None else content_hash(model_path)
    squares = (
        BatchMeanSquares(model) if estimator == "mc_batch" else PerExampleSquares(model)
    )
    if not squares.sums:
        raise InputError("the model has no trainable parameter")
    expected = limit if total is None or limit is None else min(limit, total)

    used = 0
    device = next(iter(squares.sums.values())).device
    with torch.enable_grad(), _eval_mode(model), squares:
        for batch in read_batches(data, device, limit):
            _add(squares, model, batch, estimator, samples, seed)
            used += batch.size
            if progress is not None:
                progress(used, expected or total, "")
    if used == 0:
        raise InputError("data has no examples")

    for name, sum_of_squares in squares.sums.items():
        sum_of_squares.div_(used)
        if not sum_of_squares.isfinite().all():
            raise Error(f"the Fisher of {name} is not finite")
    return FisherResult(
        squares.sums,
        estimator=estimator,
        num_examples=num_examples or total or used,
        num_examples_used=used,
        samples=samples,
        seed=seed,
        labels="data" if estimator == "empirical" else "model",
        base_model_hash=model_hash,
    )


def _add(squares, model, batch: Batch, estimator: str, samples: int, seed: int):
    """Adds a batch's squares: one forward pass, a backward pass per direction."""
    logits = squares.forward(lambda: _logits(model, batch), batch.size)
    if estimator == "exact":
        directions = exact_directions(logits)
        count = len(directions)
    elif estimator == "empirical":
        directions = label_direction(logits, batch.labels)
        count = len(directions)
    else:
        # One at a time: together they could fill the memory.
        directions = sampled_directions(logits, batch.indices, seed, samples)
        count = samples
    for number, direction in enumerate(directions, start=1):
        squares.backward(logits, direction, keep_graph=number < count)


def _logits(model: nn.Module, batch: Batch) -> Tensor:
    output = model(*batch.args, **batch.kwargs)
    if isinstance(output, Mapping):  # transformers' ModelOutput
        output = output["logits"]
    elif isinstance(output, tuple):
        output = output[0]
    if output.dim() != 2 or len(output) != batch.size or output.shape[1] < 2:
        raise InputError(
            f"the model must return logits ({batch.size}, K) with K >= 2 classes for "
            f"a batch of {batch.size} examples, not a tensor {tuple(output.shape)}"
        )
    return output


def _check_arguments(estimator, samples, limit, num_examples, seed) -> None:
    if estimator not in ESTIMATORS:
        raise InputError(
            f"estimator must be one of {', '.join(ESTIMATORS)}, not {estimator!r}"
        )
    for name, value, least in [
        ("samples", samples, 1),
        ("limit", limit, 1),
        ("num_examples", num_examples, 1),
        ("seed", seed, 0),
    ]:
        if value is None and name in ("limit", "num_examples"):
            continue
        if not isinstance(value, Integral):
            raise InputError(f"{name} must be a whole number, not {value!r}")
        if not least <= value < 2**63:  # what the metadata of a file can hold
            raise InputError(
                f"{name} must be at least {least} and below 2**63, not {value}"
            )
    if samples != 1 and not estimator.startswith("mc"):
        raise InputError(f"samples is for mc and mc_batch, not for {estimator}")


@contextmanager
def _eval_mode(model: nn.Module):
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
