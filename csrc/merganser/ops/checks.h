#pragma once

#include <ATen/core/Tensor.h>

#include <string>
#include <utility>

// Checks of arguments. They throw c10::Error with a message that begins with
// `op` and `name`.
namespace merganser::ops {

std::string dtype_name(const at::Tensor& tensor); // as in Python: "float32"

// A Fisher or a moment: float32 or float64, contiguous.
void check_accumulator(
    const char* op,
    const char* name,
    const at::Tensor& tensor);

// A gradient or an activation: float32, bfloat16 or float16, on the device of
// `accumulator`; float64 only with a float64 accumulator.
void check_input(
    const char* op,
    const char* name,
    const at::Tensor& tensor,
    const at::Tensor& accumulator);

void check_device(
    const char* op,
    const char* name,
    const at::Tensor& tensor,
    const at::Tensor& like);

void check_shape(
    const char* op,
    const char* name,
    const at::Tensor& tensor,
    at::IntArrayRef expected);

void check_dim(
    const char* op,
    const char* name,
    const at::Tensor& tensor,
    int64_t dim);

void check_same_dtype(
    const char* op,
    const char* name,
    const at::Tensor& tensor,
    const char* other_name,
    const at::Tensor& other);

// (B, L, C) or (B, C); C must be `channels`.
void check_tokens(
    const char* op,
    const char* name,
    const at::Tensor& tensor,
    int64_t channels);

// int64, on the device of `like`.
void check_indices(
    const char* op,
    const char* name,
    const at::Tensor& tensor,
    const at::Tensor& like);

void check_weight(const char* op, double weight); // finite

// Views (B, L, C) or (B, C) as (B, L, C), with L = 1 for the latter.
at::Tensor as_tokens(const at::Tensor& tensor);

// An input as the kernels take it: contiguous, and float64 with a float64
// accumulator (no kernel mixes float64 with other types).
at::Tensor kernel_input(const at::Tensor& tensor, at::ScalarType accumulator);

// Two inputs (B, L, C) or (B, C) as the kernels take them: (B, L, C), with a
// common dtype.
std::pair<at::Tensor, at::Tensor> kernel_inputs(
    const at::Tensor& first,
    const at::Tensor& second,
    at::ScalarType accumulator);

// Checks of each op. The CPU and CUDA kernels begin with them; the Meta kernel
// of an in-place op consists of them.
void check_square_accumulate_(
    at::Tensor& fisher,
    const at::Tensor& grad,
    double weight);

void check_linear_square_accumulate_(
    at::Tensor& fisher,
    const at::Tensor& input,
    const at::Tensor& grad_output,
    double weight);

// Copy of input (B, L, in) with zeros for the tokens whose output (B, L, out)
// is all zero: they must not contribute to linear_square_accumulate_, and zero
// times infinity is not zero.
at::Tensor without_idle_tokens(
    const at::Tensor& input,
    const at::Tensor& output);

// linear_square_accumulate_ with one token per example, input (B, in) and
// output (B, out): sum_i (d_i^T a_i)^2 is one matrix product of the squares.
void accumulate_single_tokens(
    at::Tensor& fisher,
    const at::Tensor& input,
    const at::Tensor& output,
    double weight);

void check_bias_square_accumulate_(
    at::Tensor& fisher,
    const at::Tensor& grad_output,
    double weight);

void check_embedding_square_accumulate_(
    at::Tensor& fisher,
    const at::Tensor& indices,
    const at::Tensor& grad_output,
    double weight,
    int64_t padding_idx);

void check_layer_norm_square_accumulate_(
    at::Tensor& fisher,
    const at::Tensor& normalized,
    const at::Tensor& grad_output,
    double weight);

void check_sample_labels(
    const at::Tensor& probabilities,
    const at::Tensor& indices);

void check_dropout(const at::Tensor& input, double probability);

} // namespace merganser::ops
