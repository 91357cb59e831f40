"""The diagonal Fisher of a PyTorch model, with squares per example."""

import os
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from typing import TYPE_CHECKING

import torch
from torch import nn

from ._C import InputError
from ._common.arguments import check_autocast, check_choice, check_count
from ._common.wrappers import (
    check_whole,
    is_fully_sharded,
    parameters_inside,
    unwrapped,
)
from ._fisher.batch_mean import BatchMeanSquares
from ._fisher.data import Data
from ._fisher.forward import Forward, Pass
from ._fisher.model_state import (
    all_trainable,
    autocast_dtype,
    code_of,
    device_of,
    differentiable,
    moved,
    tensor_hashes,
    weights_hash,
)
from ._fisher.partial_sums import PartialSums
from ._fisher.ranks import Ranks
from ._fisher.sharded import ShardedSquares, check_arguments, reshard, sharded_squares
from ._fisher.squares import PerExampleSquares, to_means
from ._fisher.stored import Stored
from ._objective.states import Carrier, Model
from ._objective.task_vector import TaskVectorPass
from .fisher_result import FisherResult
from .linearize import Linearized

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

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
    base: Model | None = None,
    base_data: Iterable | None = None,
    process_group: "ProcessGroup | None" = None,
    progress: Callable[[int, int | None, str], None] | None = None,
) -> FisherResult:
    """Estimates the diagonal Fisher of a model's parameters.

    F = 1/N sum_i E_{y ~ p(.|x_i)} [ (d log p(y | x_i) / d theta)^2 ], with squares per
    example, at the cost of about one backward pass and without a copy of the gradient
    per example ("mc_batch": per batch). The model runs in eval mode. Its parameters,
    modes and hooks are the same afterwards, even if the call fails.

    Args:
        model: any module. It must return a tensor of outputs with a row per example, an
            object whose `.logits` are one, or a tuple that begins with one. Wrappers
            (torch.compile, DataParallel, DDP) are left out, also of the names.
        data: batches: a DataLoader or another iterable of dicts (the model's keyword
            arguments, "labels" (B, ...) for "empirical", optionally "index" (B,), the
            examples' positions in the data set), of pairs (inputs, labels) with inputs
            a tensor or such a dict, or of tensors. With `collator`: examples, such as
            a datasets.Dataset.
        estimator: "exact" (the expectation over labels: K - 1 backward passes for K
            classes, K for K values or independent labels), "mc" (`samples` labels
            drawn from the model per example), "empirical" (the data's labels) or
            "mc_batch" (one ordinary backward pass per sample: B times the squared batch
            mean; unbiased, with a higher variance).
        loss: the distribution of labels given the outputs. "classification": softmax
            of logits (B, K), or (B, L, K) for sequences of independent labels, where
            labels -100 (without labels: masked tokens) do not count. "causal_lm": the
            same, but position t predicts token t + 1; an example is a sequence, and
            tokens are sampled from the model's distribution at each position, given the
            text. "multilabel": logits (B,) or (B, K) of independent labels 0 or 1.
            "regression": means (B,) or (B, K) of Gaussians of variance 1. A function of
            (the model's output, labels) that returns (B,) negative log-likelihoods, for
            "empirical". "auto": from the model's config and class, then from the shape
            of the outputs and the labels. One output with labels 0 and 1, or without
            labels, is refused: it may be a logit or a mean.
        samples: labels drawn per example, for "mc" and "mc_batch".
        limit: max number of examples: a random subset, the one that the executable
            draws with `seed`. The first ones of data without positions (a generator, an
            IterableDataset, a loader with a batch_sampler or of a subclass): shuffle
            those that are sorted by label. A list of batches gives batches with few
            rows each; a DataLoader's stay full.
        seed: random seed for that subset and for sampling labels, at least 0. A label
            depends only on the model's probabilities, `seed` and the example's index.
        dtype: bfloat16 or float16: run under autocast to this dtype. Sums are float32
            or wider.
        device: device to run on; the model is moved there, and back afterwards. By
            default the device of its first parameter.
        trainable_only: exclude frozen parameters.
        unsupported: treatment of a parameter with a use that has no rule for
            per-example gradients: "per_example" runs single examples and warns with the
            parameter's name, "error" raises.
        collator: combines a list of `batch_size` examples of `data` into a batch.
        batch_size: examples per batch, with `collator`.
        num_examples: N, by which a merge scales the mean (H = N F). By default the
            number of examples in `data`, including those beyond `limit`.
        model_path: directory or file that `model` was loaded from or saved to. Its
            hash is stored in the result, and recipes refuse a Fisher of other weights
            (`merge` in memory does not check; `mismatch`, `refine` and
            `Posterior.laplace` also compare `tensor_hashes`). The names and shapes in
            the result are the file's, where transformers has others in memory (fused
            experts).
        checkpoint: file to which the sums are saved about once a minute. If it exists,
            the run resumes from it, with the same result; the data must come in the
            same order. It is kept after the run. With `process_group` each rank has its
            own file: `.RANK-of-SIZE` is added to the name.
        base: the model that `model` was fine-tuned from: a module, a state dict or the
            path of a checkpoint. Also measures the model's gradient and the base's
            exact curvature along the task vector (`task_vector` of the result), for
            measured_gradient_matching. Takes one more forward and backward pass over
            `data`, which needs labels, and a forward pass and, for K classes, K - 1
            backward passes over `base_data`.
        base_data: data that the base was trained on, with `base`; read as `data`, with
            the same `limit`, `seed`, `collator` and `batch_size`.
        process_group: group, such as torch.distributed.group.WORLD, whose ranks share
            the examples: each passes the same arguments, reads all of `data`, takes
            every `size`-th batch and has the same result. None: this process takes all
            batches, also where torch.distributed is initialised. A model that torch's
            fully_shard (FSDP2) has sharded needs it, and returns a sharded result,
            without mc_batch, device, model_path, checkpoint and base.
        progress: called after each batch with the number of examples done, the total
            (None: unknown) and an empty text, or "base" for `base_data`.

    Returns:
        A FisherResult: a mapping from parameter names (tied ones under their first
        name) to means F, float32 or wider, in the parameters' shapes. The Fisher of a
        parameter that the outputs do not depend on is zero.

    Raises:
        InputError: invalid arguments or data; says which.
        NotImplementedError: a parameter without a rule, with unsupported="error"; names
            it.
        Error: a Fisher that is not finite, with the parameter's name; another rank of
            `process_group` that failed, with its number, or ended.

    Source: Daheim et al., arXiv 2310.12808, section 3; docs/method.md, section 3.
    """
    _check_numbers(estimator, samples, seed)
    _check_choices(estimator, loss, dtype, unsupported)
    if (base is None) != (base_data is None):
        raise InputError("base and base_data must be given together")
    model = unwrapped(model)
    if isinstance(model, Linearized):
        raise InputError(
            "expected an ordinary model, got a linearized one: save it and estimate "
            "the Fisher of the saved model"
        )
    sharded = is_fully_sharded(model)
    if sharded:
        check_arguments(
            estimator,
            process_group,
            device=device,
            model_path=model_path,
            checkpoint=checkpoint,
            base=base,
        )
        reshard(model)
    else:
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
        stored = None if model_path is None else Stored.of(model_path, model)
        stack.enter_context(differentiable(model))
        home = device_of(model)
        if device is not None and torch.device(device) != home:
            stack.enter_context(moved(model, torch.device(device), home))
        if not trainable_only:
            stack.enter_context(all_trainable(model))
        squares: BatchMeanSquares | PerExampleSquares
        if sharded:
            squares = stack.enter_context(sharded_squares(model, unsupported, ranks))
        elif estimator == "mc_batch":
            squares = BatchMeanSquares(model)
        else:
            squares = PerExampleSquares(model, unsupported)
        if not squares.sums:
            raise InputError("the model has no trainable parameter")
        with ranks.passing():
            hashes = tensor_hashes(dict(parameters_inside(model)))
        forward = Forward(model, loss, dtype)
        pass_over = Pass(forward, estimator, samples, seed)
        along = None
        if base is not None and base_data is not None:
            along = TaskVectorPass(
                stack.enter_context(Carrier(model, "model")),
                base,
                Data(
                    base_data,
                    model,
                    collator=collator,
                    batch_size=batch_size,
                    limit=limit,
                    seed=seed,
                    num_examples=1,  # not used
                    label="base_data",
                    ranks=ranks,
                ),
                forward,
                seed=seed,
                unsupported=unsupported,
            )
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
            partial = PartialSums(ranks.file(checkpoint), squares.sums, run)
        for batch in examples.read(device_of(model), progress):
            if partial is None or not partial.has(batch):
                pass_over.add_to(squares, batch)
            if partial is not None:
                partial.write()
            if along is not None:
                along.add(batch)
        if partial is not None:
            partial.finish()
        if isinstance(squares, ShardedSquares):
            assert examples.first is not None
            squares.finish(forward, examples.first)
            examples.check_read()
        else:
            examples.add_up(squares.sums, device_of(model))
        task_vector = None if along is None else along.finish(progress)
        to_means(squares.sums, examples.used, ranks)
    diagonal = {name: f.to(home) for name, f in squares.sums.items()}
    return FisherResult(
        diagonal if stored is None else stored.form(diagonal),
        estimator=estimator,
        num_examples=examples.num_examples,
        num_examples_used=examples.used,
        samples=samples,
        seed=seed,
        labels="data" if estimator == "empirical" else "model",
        base_model_hash="" if stored is None else stored.hash,
        task_vector=task_vector,
        tensor_hashes=hashes,
    )


def _check_numbers(estimator, samples, seed) -> None:
    check_choice("estimator", estimator, ESTIMATORS)
    check_count("samples", samples)
    check_count("seed", seed, minimum=0)
    if samples != 1 and not estimator.startswith("mc"):
        raise InputError(f"samples applies to mc and mc_batch, not to {estimator}")


def _check_choices(estimator, loss, dtype, unsupported) -> None:
    if callable(loss) and estimator != "empirical":
        raise InputError(
            f"estimator='{estimator}' needs the distribution of the labels, which is "
            "unknown if loss is a function: use 'empirical'"
        )
    check_autocast(dtype)
    check_choice("unsupported", unsupported, ("per_example", "error"))
