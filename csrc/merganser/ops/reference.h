#pragma once

#include "merganser/ops/ops.h"

// Definition of each op of ops.h, composed of ATen calls: slow, and correct on
// any device and in any precision. Tests compare the kernels with it; with
// float64 tensors it is the oracle. The elementwise ops (square_accumulate_,
// adam_fisher_step_, merge) have the same bits as their definitions on the CPU;
// sums over tokens and matrix products may add up in another order.
namespace merganser::ops {

MERGANSER_API void square_accumulate_reference_(
    at::Tensor& fisher,
    const at::Tensor& grad,
    double weight);

MERGANSER_API void adam_fisher_step_reference_(const AdamFisherStep& step);

MERGANSER_API at::Tensor merge_reference(const TensorMerge& merge);

MERGANSER_API void linear_square_accumulate_reference_(
    at::Tensor& fisher,
    const at::Tensor& input,
    const at::Tensor& grad_output,
    double weight);

MERGANSER_API void bias_square_accumulate_reference_(
    at::Tensor& fisher,
    const at::Tensor& grad_output,
    double weight);

MERGANSER_API void embedding_square_accumulate_reference_(
    at::Tensor& fisher,
    const at::Tensor& indices,
    const at::Tensor& grad_output,
    double weight,
    int64_t padding_idx);

MERGANSER_API void layer_norm_square_accumulate_reference_(
    at::Tensor& fisher,
    const at::Tensor& normalized,
    const at::Tensor& grad_output,
    double weight);

MERGANSER_API at::Tensor sample_labels_reference(
    const at::Tensor& probabilities,
    const at::Tensor& indices,
    int64_t seed,
    int64_t sample);

MERGANSER_API at::Tensor dropout_reference(
    const at::Tensor& input,
    double probability,
    int64_t seed,
    int64_t stream);

} // namespace merganser::ops
