#pragma once

#include <ATen/core/Tensor.h>

#include "merganser/ops/ops.h"

// The CPU kernel of each op of ops.h, and the Meta kernels of those that return
// a tensor. Registered in library.cpp.
namespace merganser::ops {

void square_accumulate_cpu(
    at::Tensor& fisher,
    const at::Tensor& grad,
    double weight);

void adam_fisher_step_cpu(const AdamFisherStep& step);

at::Tensor merge_cpu(const TensorMerge& merge);
at::Tensor merge_meta(const TensorMerge& merge);

void linear_square_accumulate_cpu(
    at::Tensor& fisher,
    const at::Tensor& input,
    const at::Tensor& grad_output,
    double weight);

void bias_square_accumulate_cpu(
    at::Tensor& fisher,
    const at::Tensor& grad_output,
    double weight);

void embedding_square_accumulate_cpu(
    at::Tensor& fisher,
    const at::Tensor& indices,
    const at::Tensor& grad_output,
    double weight,
    int64_t padding_idx);

void layer_norm_square_accumulate_cpu(
    at::Tensor& fisher,
    const at::Tensor& normalized,
    const at::Tensor& grad_output,
    double weight);

at::Tensor sample_labels_cpu(
    const at::Tensor& probabilities,
    const at::Tensor& indices,
    int64_t seed,
    int64_t sample);
at::Tensor sample_labels_meta(
    const at::Tensor& probabilities,
    const at::Tensor& indices,
    int64_t seed,
    int64_t sample);

at::Tensor dropout_cpu(
    const at::Tensor& input,
    double probability,
    int64_t seed,
    int64_t stream);
at::Tensor dropout_meta(
    const at::Tensor& input,
    double probability,
    int64_t seed,
    int64_t stream);

} // namespace merganser::ops
