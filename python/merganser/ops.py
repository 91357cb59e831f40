"""The tensor operators, `torch.ops.merganser.*`, with types and documentation.

Each has a CPU kernel and, in a CUDA build (see `has_cuda`), a CUDA kernel, and works
under FakeTensorMode. Only `dropout` is differentiable. An operator whose name ends in
`_` changes its first arguments in place; these are contiguous and float32 (or float64).
Inputs are float32, bfloat16 or float16, with any strides, and float64 together with
float64. Sums have the dtype of the changed argument. All operators raise RuntimeError
for tensors of the wrong shape, dtype or device, with the operator, the argument, the
expected and the actual value; other errors are documented below.

Sources: for squares per example Goodfellow, arXiv 1510.01799 (linear layers), for
merges Daheim et al., arXiv 2310.12808. docs/method.md derives both.

Notation: B examples, L tokens. Squares are per example (not per token, not per batch):
the sum over i of g_i^2, with g_i the gradient of example i alone.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from . import _C

_ops = torch.ops.merganser


def has_cuda() -> bool:
    """Returns whether this build has CUDA kernels.

    Without them, operators raise RuntimeError for CUDA tensors, with instructions to
    rebuild.
    """
    return _ops.has_cuda.default()


def square_accumulate_(fisher: Tensor, grad: Tensor, weight: float = 1.0) -> None:
    """fisher += weight * grad**2, elementwise.

    fisher and grad have the same shape.

    Raises RuntimeError for a weight that is not finite.
    """
    _ops.square_accumulate_.default(fisher, grad, weight)


def adam_fisher_step_(
    params: Sequence[Tensor],
    grads: Sequence[Tensor],
    exp_avgs: Sequence[Tensor],
    exp_avg_sqs: Sequence[Tensor],
    fishers: Sequence[Tensor] = (),
    *,
    steps: Sequence[int],
    lr: float,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    grad_scale: float = 1.0,
    fisher_weight: float = 1.0,
) -> None:
    """One AdamW step and running sums of squared gradients, in one pass.

    The k-th items of the lists belong to parameter k. With g = grad * grad_scale (the
    factor of gradient clipping):

        exp_avg    = beta1 * exp_avg + (1 - beta1) * g
        exp_avg_sq = beta2 * exp_avg_sq + (1 - beta2) * g**2
        param     -= lr * (weight_decay * param + m / (sqrt(v) + eps))
        fisher    += fisher_weight * g**2          (unless fishers is empty)

    with m, v the moments divided by 1 - beta**step; steps count from 1. Equal to
    torch.optim.AdamW (Loshchilov & Hutter 2019). A parameter, its gradient, moments
    and Fisher have the same shape and, except the gradient, the same dtype; all
    parameters are on one device. A GPU updates about forty of them per launch.

    Raises RuntimeError for empty lists, lists of unequal lengths, a step below 1 and
    numbers out of range: lr or eps below 0, betas outside [0, 1), non-finite values.
    """
    _ops.adam_fisher_step_.default(
        params,
        grads,
        exp_avgs,
        exp_avg_sqs,
        fishers,
        steps,
        lr,
        beta1,
        beta2,
        eps,
        weight_decay,
        grad_scale,
        fisher_weight,
    )


def merge(
    base: Tensor | None,
    models: Sequence[Tensor],
    fishers: Sequence[Tensor] = (),
    *,
    method: str,
    base_fisher: Tensor | None = None,
    weights: Sequence[float] | None = None,
    scales: Sequence[float] | None = None,
    rhos: Sequence[float] | None = None,
    base_scale: float = 1.0,
    delta: float = 1e-12,
    clamp: float = 0.05,
    floor: float = 1e-6,
) -> Tensor:
    """Merges the tensors of n models (and their Fishers) in one pass.

    All have the same shape. `weights` are the alpha_t (1 each if None), `scales` the
    numbers of examples N_t in H_t = N_t * fishers[t] (1 each if None), `base_scale` is
    N_0 in H_0 = N_0 * base_fisher + delta. `rhos` are the rho_t of gradient_matching (1
    each if None), `clamp` is for removal, `floor` for ewr.
    Formulas: docs/method.md. Half types are computed in float32; the result has the
    dtype of models[0].

    Raises InputError for an unknown method, RuntimeError for an empty list of models,
    a wrong number of weights, Fishers, scales or rhos, or a missing base or
    base_fisher. Does not check values: `merganser.merge` does.
    """
    found = _C.find_method(method)
    if found.needs_subspace or (method == "measured_gradient_matching" and not rhos):
        needed = "a recipe" if found.needs_subspace else "rhos"
        raise _C.InputError(f"merge: method {method} needs {needed}")
    return _ops.merge.default(
        base,
        base_fisher,
        list(models),
        list(fishers),
        [1.0] * len(models) if weights is None else list(weights),
        [1.0] * len(fishers) if scales is None else list(scales),
        [] if rhos is None else list(rhos),
        base_scale,
        found.id,
        delta,
        clamp,
        floor,
    )


def linear_square_accumulate_(
    fisher: Tensor, input: Tensor, grad_output: Tensor, weight: float = 1.0
) -> None:
    """Weight of a linear layer: fisher += weight * sum_i (D_i^T A_i)**2.

    fisher (out, in); input A (B, L, in) or (B, in); grad_output D, the gradient of the
    loss with respect to the layer's output, (B, L, out) or (B, out). Needs no buffer of
    B weight gradients. A token whose grad_output is all zero contributes nothing, even
    if its input is not finite.

    Raises RuntimeError for a weight that is not finite.
    """
    _ops.linear_square_accumulate_.default(fisher, input, grad_output, weight)


def bias_square_accumulate_(
    fisher: Tensor, grad_output: Tensor, weight: float = 1.0
) -> None:
    """Bias: fisher += weight * sum_i (sum_l D_il)**2.

    fisher (C); grad_output D (B, L, C) or (B, C).

    Raises RuntimeError for a weight that is not finite.
    """
    _ops.bias_square_accumulate_.default(fisher, grad_output, weight)


def embedding_square_accumulate_(
    fisher: Tensor,
    indices: Tensor,
    grad_output: Tensor,
    weight: float = 1.0,
    padding_idx: int = -1,
) -> None:
    """Embedding: fisher[v] += weight * sum_i (sum over l with id_il = v of D_il)**2.

    Gradients of equal tokens of an example are summed before the square. fisher (V, D);
    indices (B, L) int64; grad_output (B, L, D). Entries equal to padding_idx (if not
    negative) are skipped.

    Raises RuntimeError for indices or a padding_idx outside of the table, or a weight
    that is not finite.
    """
    _ops.embedding_square_accumulate_.default(
        fisher, indices, grad_output, weight, padding_idx
    )


def layer_norm_square_accumulate_(
    fisher: Tensor, normalized: Tensor, grad_output: Tensor, weight: float = 1.0
) -> None:
    """Weight of a LayerNorm: fisher += weight * sum_i (sum_l D_il x_il)**2.

    fisher (C); normalized, the input x after normalization and before weight and bias,
    and grad_output D: (B, L, C) or (B, C). For the bias of a LayerNorm use
    `bias_square_accumulate_`.

    Raises RuntimeError for a weight that is not finite.
    """
    _ops.layer_norm_square_accumulate_.default(fisher, normalized, grad_output, weight)


def sample_labels(
    probabilities: Tensor, indices: Tensor, seed: int, sample: int = 0
) -> Tensor:
    """Samples one label from each row of `probabilities`.

    probabilities (B, K) float32 or float64, rows with sum 1; indices (B) int64, the
    examples' positions in their data set. Returns (B) int64. A label depends only on
    its row and on (seed, index, sample) (Philox4x32-10; Salmon et al. 2011), not on
    the batch or its order.

    Raises RuntimeError for a row that is not a distribution.
    """
    return _ops.sample_labels.default(probabilities, indices, seed, sample)


def dropout(input: Tensor, probability: float, seed: int, stream: int = 0) -> Tensor:  # noqa: A002 (torch's name)
    """Zeroes elements with the given probability and scales the others.

    input: floating-point, any shape; probability in [0, 1 - 2**-16], rounded to a
    multiple of 2**-16. The choice depends only on an element's position in row-major
    order and on (seed, stream) (Philox4x32-10; Salmon et al. 2011), so no mask is
    stored. Differentiable.

    Raises RuntimeError for a probability out of range.
    """
    return _ops.dropout.default(input, probability, seed, stream)
