#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <vector>

#include "merganser/base/api.h"

// The tensor functions, called through the dispatcher: each has a definition
// composed of ATen calls (`*_reference`, the oracle), a Meta kernel, a fused
// CPU kernel and a CUDA kernel. The schemas are in ops/library.cpp; Python
// calls the same functions as torch.ops.merganser.*.
//
// B examples, L tokens. Tensors updated in place (fisher, params, moments) are
// float32 or float64 and contiguous; other inputs are float32, bfloat16 or
// float16 with any strides, or float64 if the updated tensors are float64. All
// tensors are on one device. Errors: c10::Error with the op, the argument, the
// expected value and the actual one, for a wrong shape, dtype or device, and
// for a weight that is not finite.
//
// Source of the squares per example: Goodfellow, arXiv 1510.01799.
namespace merganser::ops {

// fisher += weight * grad^2, elementwise; fisher and grad have one shape.
MERGANSER_API void square_accumulate_(
    at::Tensor& fisher,
    const at::Tensor& grad,
    double weight);

// Arguments of adam_fisher_step_. The lists are views and must outlive the
// call. The k-th items belong to one parameter and have its shape and, except
// grads, its dtype.
struct AdamFisherStep {
  at::TensorList params = {};
  at::TensorList grads = {};
  at::TensorList exp_avgs = {};
  at::TensorList exp_avg_sqs = {};
  at::TensorList fishers = {}; // or empty
  at::IntArrayRef steps = {}; // from 1
  double lr = 0;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double eps = 1e-8;
  double weight_decay = 0;
  double grad_scale = 1;
  double fisher_weight = 1;
};

// One AdamW step (decoupled decay, bias correction) of some parameters, and in
// the same pass the running sums of squared gradients:
//   g = grad * grad_scale;  m = b1 m + (1-b1) g;  v = b2 v + (1-b2) g^2
//   param -= lr * (weight_decay * param
//                  + m / (1-b1^step) / (sqrt(v / (1-b2^step)) + eps))
//   fisher += fisher_weight * g^2            (skipped where fishers is empty)
// `grad_scale` carries gradient clipping; the caller multiplies fisher_weight
// by 1 / grad_scale^2 to undo it. A GPU updates about forty parameters per
// launch. Errors: lists of unequal lengths, a step below 1, lr or eps below 0,
// betas outside [0, 1), scalars that are not finite.
// Source: Loshchilov & Hutter 2019; Li 2025, "Fishers for free?".
MERGANSER_API void adam_fisher_step_(const AdamFisherStep& step);

// Arguments of merge: one tensor per model, their mean Fishers and the scalars
// of the formula (numeric/merge_formula.h). All tensors have one shape. The
// lists are views and must outlive the call.
struct TensorMerge {
  std::optional<at::Tensor> base = {}; // optional for linear and fisher
  std::optional<at::Tensor> base_fisher = {};
  at::TensorList models = {};
  at::TensorList fishers = {}; // empty for methods without Fishers
  at::ArrayRef<double> weights = {}; // alpha_t
  at::ArrayRef<double> num_examples = {}; // N_t; `scales` in the schema
  at::ArrayRef<double> rhos = {}; // gradient matching: rho_t; empty: 1 each
  double base_num_examples = 1; // N_0; `base_scale` in the schema
  int64_t method = 0; // a MergeFormula, up to kLastOpFormula
  double delta = 1e-12;
  double clamp = 0.05;
  double floor = 1e-6;
};

// One merged tensor in one pass, with the shape and dtype of the first model.
// Half types are merged in float32; float64 if any tensor is float64. Errors:
// no models, a wrong number of weights, Fishers, num_examples or rhos, a
// missing base or base_fisher. Values are not checked. Source: Daheim et al.,
// arXiv 2310.12808.
MERGANSER_API at::Tensor merge(const TensorMerge& merge);

// Weight of a linear layer, squared per example: fisher (out, in) += weight *
// sum_i (D_i^T A_i)^2. input A: (B, L, in) or (B, in); grad_output D: (B, L,
// out) or (B, out). Tokens whose grad_output is all zero (padding) are skipped
// whatever their input is; a NaN is not zero.
MERGANSER_API void linear_square_accumulate_(
    at::Tensor& fisher,
    const at::Tensor& input,
    const at::Tensor& grad_output,
    double weight);

// Bias: fisher (C) += weight * sum_i (sum_l D_il)^2; grad_output D: (B, L, C)
// or (B, C).
MERGANSER_API void bias_square_accumulate_(
    at::Tensor& fisher,
    const at::Tensor& grad_output,
    double weight);

// Embedding table: fisher[v] += weight * sum_i (sum_{l: id_il = v} D_il)^2.
// fisher (V, D); indices (B, L) int64; grad_output (B, L, D). Indices equal to
// padding_idx (>= 0) are skipped. Errors: an index outside [0, V), padding_idx
// >= V.
MERGANSER_API void embedding_square_accumulate_(
    at::Tensor& fisher,
    const at::Tensor& indices,
    const at::Tensor& grad_output,
    double weight,
    int64_t padding_idx);

// Weight of a LayerNorm: fisher (C) += weight * sum_i (sum_l D_il x_il)^2 with
// x the normalised input. normalized, grad_output: (B, L, C) or (B, C). The
// bias of a LayerNorm takes bias_square_accumulate_.
MERGANSER_API void layer_norm_square_accumulate_(
    at::Tensor& fisher,
    const at::Tensor& normalized,
    const at::Tensor& grad_output,
    double weight);

// True if this build has CUDA kernels. Without them, an op called with a CUDA
// tensor throws an error that says how to rebuild.
MERGANSER_API bool has_cuda();

// One label per row of `probabilities` (B, K), float32 or float64, drawn by a
// counter-based generator keyed by (seed, index, sample): a label depends
// neither on the batch nor on its order. indices (B) int64. Returns (B) int64.
// Errors: a row that is not a distribution.
// Source: Philox4x32-10, Salmon et al. 2011.
MERGANSER_API at::Tensor sample_labels(
    const at::Tensor& probabilities,
    const at::Tensor& indices,
    int64_t seed,
    int64_t sample);

// Sets each element of `input` (floating-point, any shape) to 0 with the given
// probability and scales the others by 1 / (1 - probability). The probability
// is rounded to a multiple of 2^-16. The mask depends on the row-major index
// and on (seed, stream) only and is not stored. Differentiable. Errors: a
// probability outside [0, 1 - 2^-16]. Source: Srivastava et al., "Dropout"
// (JMLR 2014); Philox4x32-10, Salmon et al. 2011.
MERGANSER_API at::Tensor dropout(
    const at::Tensor& input,
    double probability,
    int64_t seed,
    int64_t stream);

} // namespace merganser::ops
