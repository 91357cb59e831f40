#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <vector>

#include "merganser/base/api.h"

// The tensor functions, through the dispatcher: each has a CPU definition
// composed of ATen calls (`*_reference`, the oracle), a Meta kernel, a fused
// CPU kernel and a CUDA kernel. Schemas in ops/library.cpp; the same functions
// in Python are torch.ops.merganser.*. Fishers are float32 (or float64, for
// oracles) whatever the inputs' dtype; inputs float32, bfloat16, float16 or
// float64. All throw c10::Error with operation, argument and what was expected.
namespace merganser::ops {

// fisher += weight * grad^2, elementwise; same shape.
MERGANSER_API void square_accumulate_(
    at::Tensor& fisher,
    const at::Tensor& grad,
    double weight);

// One AdamW step (decoupled decay, bias correction) of some parameters, and in
// the same pass the running sums of squared gradients. The k-th items of the
// lists are those of one parameter:
//   g = grad * grad_scale;  m = b1 m + (1-b1) g;  v = b2 v + (1-b2) g^2
//   param -= lr * (weight_decay * param
//                  + m / (1-b1^step) / (sqrt(v / (1-b2^step)) + eps))
//   fisher += fisher_weight * g^2            (skipped where fishers is empty)
// A parameter, its moments and its Fisher are of one dtype and contiguous; all
// are on one device. `grad_scale` carries gradient clipping; the caller puts
// 1 / grad_scale^2 into fisher_weight. Steps count from 1. A GPU does some
// forty parameters in one launch.
// Source: Loshchilov & Hutter 2019; Li 2025, "Fishers for free?".
MERGANSER_API void adam_fisher_step_(
    at::TensorList params,
    at::TensorList grads,
    at::TensorList exp_avgs,
    at::TensorList exp_avg_sqs,
    at::TensorList fishers,
    at::IntArrayRef steps,
    double lr,
    double beta1,
    double beta2,
    double eps,
    double weight_decay,
    double grad_scale,
    double fisher_weight);

// One merged tensor from n models (and their mean Fishers) in one pass; method
// is a MergeFormula of merge/formula.h, whose scalars the other arguments are.
// base may be absent for linear and fisher.
MERGANSER_API at::Tensor merge(
    const std::optional<at::Tensor>& base,
    const std::optional<at::Tensor>& base_fisher,
    at::TensorList models,
    at::TensorList fishers,
    at::ArrayRef<double> weights,
    at::ArrayRef<double> scales,
    double base_scale,
    int64_t method,
    double delta,
    double clamp,
    double floor);

// fisher (out, in) += weight * sum_i (D_i^T A_i)^2, the squares per example.
// input A: (B, L, in) or (B, in); grad_output D: (B, L, out) or (B, out). A
// token whose grad_output is all zero (padding) contributes nothing whatever
// its input is, and costs next to nothing; a NaN is not zero.
MERGANSER_API void linear_square_accumulate_(
    at::Tensor& fisher,
    const at::Tensor& input,
    const at::Tensor& grad_output,
    double weight);

// fisher (out) += weight * sum_i (sum_l D_il)^2; grad_output (B, L, out) or
// (B, out).
MERGANSER_API void bias_square_accumulate_(
    at::Tensor& fisher,
    const at::Tensor& grad_output,
    double weight);

// fisher (V, D) += weight * sum_i sum over distinct tokens v of example i of
// (sum_{l: id_il = v} D_il)^2. indices (B, L) int64; grad_output (B, L, D).
// Entries equal to padding_idx (>= 0) are skipped.
MERGANSER_API void embedding_square_accumulate_(
    at::Tensor& fisher,
    const at::Tensor& indices,
    const at::Tensor& grad_output,
    double weight,
    int64_t padding_idx);

// The weight of a LayerNorm: fisher (C) += weight * sum_i (sum_l D_il x_il)^2
// with x the normalised input. normalized, grad_output: (B, L, C) or (B, C).
// Its bias is bias_square_accumulate_.
MERGANSER_API void layer_norm_square_accumulate_(
    at::Tensor& fisher,
    const at::Tensor& normalized,
    const at::Tensor& grad_output,
    double weight);

// Whether this build has CUDA kernels. Without them, an op that is given a CUDA
// tensor throws and says how to rebuild.
MERGANSER_API bool has_cuda();

// One label per row of `probabilities` (B, K), drawn by a counter-based
// generator keyed by (seed, index, sample): the same label for the same example
// whatever the batch or its order. indices (B) int64. Returns (B) int64.
MERGANSER_API at::Tensor sample_labels(
    const at::Tensor& probabilities,
    const at::Tensor& indices,
    int64_t seed,
    int64_t sample);

// Each element of `input` is 0 with the given probability and otherwise scaled
// by 1 / (1 - probability); the probability is rounded to a multiple of 2^-16.
// Which elements those are depends on their numbers in row-major order and on
// (seed, stream) alone, so that no mask is stored. Differentiable.
// Source: Srivastava et al., "Dropout" (JMLR 2014); Philox as in philox.h.
MERGANSER_API at::Tensor dropout(
    const at::Tensor& input,
    double probability,
    int64_t seed,
    int64_t stream);

} // namespace merganser::ops
