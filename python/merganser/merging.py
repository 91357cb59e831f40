"""Merges models in memory, with the engine that merges files (recipes.py)."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from . import _C
from ._merge.inputs import read_inputs
from ._merge.memory_merge import are_auto, make_engine, measure_fishers, merge_tensor
from .fisher_result import FisherResult
from .gram import GramResult
from .subspace_result import SubspaceResult

Model = nn.Module | Mapping[str, Tensor]
Fisher = FisherResult | str | os.PathLike
Gram = GramResult | str | os.PathLike
Weight = float | str | Sequence | Mapping[str, Any]


def merge(
    base: Model | None,
    models: Sequence[Model],
    fishers: Sequence[Fisher] | None = None,
    method: str = "gradient_matching",
    weights: Sequence[Weight] | Weight | None = None,
    *,
    base_fisher: Fisher | None = None,
    grams: Sequence[Gram] | str | None = None,
    base_gram: Gram | None = None,
    subspace: SubspaceResult | str | os.PathLike | None = None,
    parameters: Mapping[str, Any] | None = None,
) -> dict[str, Tensor]:
    """Merges models of one architecture in memory.

    With theta_0 the base, tau_t = theta_t - theta_0, H_t = N_t F_t and
    H_0 = N_0 F_0 + delta, gradient matching is, elementwise,

        theta = theta_0 + sum_t w_t (H_0 + H_t) tau_t / (H_0 + sum_t w_t H_t)

    and docs/method.md, section 2, has the other methods. Computes in float32 (float64
    for float64 tensors and with Gram matrices) and rounds once to the base's dtype:
    bit-identical to a recipe with the models in this order.

    Args:
        base: theta_0, a module or state dict; None only for the methods without a base
            (linear, fisher, regmean, passthrough).
        models: theta_t, modules or state dicts with the same names and shapes. A module
            has the names of the model inside of torch.compile, DataParallel and DDP.
        fishers: one per model, for the methods with Fishers; a FisherResult or the
            path of its file. Not checked to belong to these weights (merge_recipe
            checks). Tied tensors, or tensors that are equal to each other in every
            model, need one Fisher. A tensor that no Fisher has (a buffer, such as
            running statistics, or frozen) is kept where it is equal in all models, and
            averaged by weight otherwise, or for removal and ewr the base's (parameter
            average_buffers); a warning names it.
        method: any method in docs/recipes.md.
        weights: w_t, one per model or one for all; None: 1 each (ewr has no default).
            A weight is a number, or a value of `weight` in a recipe: [0.2, 0.8] is
            interpolated from the first layer to the last, [{"filter": "attention",
            "value": 0.3}, {"value": 1}] is 0.3 for tensors with "attention" in their
            names and 1 for the others. Not negative for methods with Fishers or Gram
            matrices. "auto" for task_arithmetic with `subspace`: the best ones in the
            span of the task vectors. Directions of the subspace have no weight.
            passthrough, slerp and model_stock have no weights.
        base_fisher: F_0, for fisher_base, gradient_matching, removal, ewr and
            block_gradient_matching.
        grams: one per model, for regmean and block_gradient_matching; a GramResult, or
            the path of its file. "task_vectors" instead of a list: those of the task
            vectors, without data; needs base, and base_gram is optional. Weights
            without Gram matrices are merged by linear and gradient_matching,
            respectively; those with them need no Fisher.
        base_gram: the base's, for block_gradient_matching.
        subspace: for subspace_gradient_matching and weights="auto"; the SubspaceResult
            of this base and these models, in their order, its directions last, or the
            path of its file.
            Checked where the checkpoints are known, as of modules that transformers
            loaded. A warning says when its examples are too few for stable weights.
        parameters: parameters of the method, as in a recipe, also by layer and by
            filter: {"delta": 1e-9, "normalize_fishers": True}, {"lambda": 0.7},
            {"density": 0.5}, {"scale": 2}, ...; defaults for the rest.

    Methods that need whole tensors, Gram matrices or a subspace run on the CPU, even
    for tensors on a GPU. The others round float64 tensors on a GPU that are merged into
    a half type twice, first to float32. Random masks depend on the order of the models
    (recipes order them by path).

    Returns:
        A state dict for load_state_dict: names and dtypes of the base, or of the
        first model without a base, on the first model's devices. Integers
        and bools come from the base, or, without a base, must agree. Names that are
        tied in all models have one tensor.

    Raises:
        InputError: a tensor that is missing, extra, not finite, of the wrong shape or
            without a Fisher, or an argument that does not fit the method; says which.

    Source: Daheim et al., arXiv 2310.12808; docs/method.md.
    """
    found = _C.find_method(method)
    inputs = read_inputs(
        found,
        base,
        models,
        fishers,
        base_fisher,
        grams,
        base_gram,
        subspace if found.needs_subspace or are_auto(weights) else None,
    )
    engine = make_engine(inputs, weights, parameters)
    measure_fishers(engine, inputs)
    canonical = inputs.canonical_names()
    merged = {
        name: merge_tensor(engine, inputs, name)
        for name in dict.fromkeys(canonical.values())
    }
    return {name: merged[canonical[name]] for name in inputs.reference.tensors}
