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

// Arguments of adam_fisher_step_. The lists are views: what they view must
// outlive the call. The k-th items are those of one parameter.
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
// A parameter, its moments and its Fisher are of one dtype and contiguous; all
// are on one device. `grad_scale` carries gradient clipping; the caller puts
// 1 / grad_scale^2 into fisher_weight. Steps count from 1. A GPU does some
// forty parameters in one launch.
// Source: Loshchilov & Hutter 2019; Li 2025, "Fishers for free?".
MERGANSER_API void adam_fisher_step_(const AdamFisherStep& step);

// Arguments of merge: a tensor of each of n models, their mean Fishers and the
// scalars of the formula (numeric/merge_formula.h). The lists are views: what
// they view must outlive the call.
struct TensorMerge {
  std::optional<at::Tensor> base = {}; // optional for linear and fisher
  std::optional<at::Tensor> base_fisher = {};
  at::TensorList models = {};
  at::TensorList fishers = {}; // empty for methods without Fishers
  at::ArrayRef<double> weights = {}; // alpha_t
  at::ArrayRef<double> num_examples = {}; // N_t; `scales` in the schema
  double base_num_examples = 1; // N_0; `base_scale` in the schema
  int64_t method = 0; // a MergeFormula, up to kEwr
  double delta = 1e-12;
  double clamp = 0.25;
  double floor = 1e-6;
};

// One merged tensor in one pass, with the shape and dtype of the first model.
MERGANSER_API at::Tensor merge(const TensorMerge& merge);

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
