"""Merging of models in memory, through what merges files (recipes.py)."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from . import _C
from ._merge.inputs import read_inputs
from ._merge.memory_merge import make_engine, measure_fishers, merge_tensor
from .fisher_result import FisherResult
from .gram import GramResult

Model = nn.Module | Mapping[str, Tensor]
Fisher = FisherResult | str | os.PathLike
Gram = GramResult | str | os.PathLike
Weight = float | Sequence | Mapping[str, Any]


def merge(
    base: Model | None,
    models: Sequence[Model],
    fishers: Sequence[Fisher] | None = None,
    method: str = "gradient_matching",
    weights: Sequence[Weight] | Weight | None = None,
    *,
    base_fisher: Fisher | None = None,
    grams: Sequence[Gram] | None = None,
    base_gram: Gram | None = None,
    parameters: Mapping[str, Any] | None = None,
) -> dict[str, Tensor]:
    """Merges models of one architecture in memory.

    With theta_0 the base, tau_t = theta_t - theta_0, H_t = N_t F_t and
    H_0 = N_0 F_0 + delta, gradient matching is, elementwise,

        theta = theta_0 + sum_t w_t (H_0 + H_t) tau_t / (H_0 + sum_t w_t H_t)

    and docs/method.md, section 2, has the other methods. Computed in float32 (float64
    where a tensor is, and with Gram matrices) and rounded once to the base's dtype: the
    same bits as a recipe gives whose models are in this order.

    Args:
        base: theta_0, a module or state dict; None only for the methods without a base
            (linear, fisher, regmean, passthrough).
        models: theta_t, modules or state dicts with the same names and shapes.
        fishers: one per model, for the methods with Fishers; a FisherResult or the
            path of its file. That they are of these models' weights is not checked
            (merge_recipe does). Of tied tensors one needs a Fisher. A tensor without
            one, being frozen or a buffer, must be the same in all models and the
            base, and is kept: exact, as it has no task vector (but not for ewr,
            whose formula shrinks the base too).
        method: any of docs/recipes.md.
        weights: w_t, one per model or one for all; None: 1 each. A weight is a number,
            or what stands under `weight` in a recipe: [0.2, 0.8] goes from the first
            layer to the last one, [{"filter": "attention", "value": 0.3}, {"value": 1}]
            is 0.3 for tensors with "attention" in their names and 1 for the others. For
            the methods with Fishers or Gram matrices at least 0. passthrough, slerp and
            model_stock have none.
        base_fisher: F_0, for fisher_base, gradient_matching, removal, ewr and
            block_gradient_matching.
        grams: one per model, for regmean and block_gradient_matching; what
            `merganser.gram` returns, or the path of its file. Weights that have none
            are merged by linear and gradient_matching; those that have one need no
            Fisher.
        base_gram: of the base, for block_gradient_matching.
        parameters: of the method, as under `parameters` in a recipe, also by layer and
            by filter: {"delta": 1e-9, "normalize_fishers": True}, {"lambda": 0.7},
            {"density": 0.5}, {"scale": 2}, ...; what is not given has its default.

    Methods that look at whole tensors or take Gram matrices are carried out on the CPU,
    wherever the tensors are. On a GPU, float64 tensors that are merged into a half type
    are rounded twice, by way of float32. Random choices depend on the order of the
    models (a recipe's are in the order of their paths).

    Returns:
        A state dict for load_state_dict: names and dtypes of the base, or of the
        first model where there is no base, on the first model's devices. Integers
        and bools come from the base, or must agree where there is none.

    Raises:
        InputError: a tensor that is missing, extra, of another shape, without its
            Fisher or not finite, or an argument that does not fit the method; says
            which.

    Source: Daheim et al., arXiv 2310.12808; docs/method.md.
    """
    inputs = read_inputs(
        _C.find_method(method), base, models, fishers, base_fisher, grams, base_gram
    )
    engine = make_engine(inputs, weights, parameters)
    measure_fishers(engine, inputs)
    return {
        name: merge_tensor(engine, inputs, name) for name in inputs.reference.tensors
    }
