#pragma once

// Launchers of the CUDA kernels: raw pointers, sizes and a stream, no torch.
// ops/ops.h describes the ops; callers check the arguments. T is float or
// double; In is float, __nv_bfloat16 or __half for float and double for double.
// No launcher allocates or waits for the device. The same inputs give the same
// bits on every run: no atomics on floats, and each sum has one order.

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime_api.h>

#include <cstdint>

#include "merganser/numeric/adam_formula.h"
#include "merganser/numeric/merge_formula.h"

namespace merganser::kernels {

template <typename T, typename In>
void launch_square_accumulate(
    const In* grad,
    T* fisher,
    int64_t n,
    T weight,
    cudaStream_t stream);

// One tensor of a step: n elements of each array; fisher may be null.
template <typename T, typename In>
struct AdamTensor {
  const In* __restrict__ grad;
  T* __restrict__ param;
  T* __restrict__ exp_avg;
  T* __restrict__ exp_avg_sq;
  T* __restrict__ fisher;
  int64_t n;
  AdamScalars<T> scalars;
};

// Updates all tensors of a list (in host memory), about forty per launch.
template <typename T, typename In>
void launch_adam_fisher_step(
    const AdamTensor<T, In>* tensors,
    int64_t count,
    cudaStream_t stream);

constexpr int kMaxMergeModels = 32;

enum class Type : uint8_t { kFloat, kBFloat16, kHalf, kDouble };

struct Source {
  const void* data = nullptr; // null: the method does not use it
  Type type = Type::kFloat;
};

// Arguments of merge, passed to the kernel by value. The kernel sets the
// pointers of `scalars`.
template <typename T>
struct MergeArguments {
  Source base;
  Source base_fisher;
  Source models[kMaxMergeModels];
  Source fishers[kMaxMergeModels];
  T weights[kMaxMergeModels];
  T scales[kMaxMergeModels];
  T rhos[kMaxMergeModels];
  MergeScalars<T> scalars;
  void* out;
  Type out_type;
  int64_t n;
};

template <typename T>
void launch_merge(
    MergeFormula method,
    const MergeArguments<T>& arguments,
    cudaStream_t stream);

// Writes lists (B, 1 + L): for each example the number of tokens with a
// gradient (a row of grad_output (B, L, width) that is not all zero), then
// their indices in order.
template <typename In>
void launch_example_tokens(
    const In* grad_output,
    int* lists,
    int64_t examples,
    int64_t tokens,
    int64_t width,
    cudaStream_t stream);

// Number of shares to divide the examples into, so that a small Fisher occupies
// the whole device.
template <typename In>
int64_t linear_square_shares(int64_t examples, int64_t in, int64_t out);

// input (B, L, in), grad_output (B, L, out), fisher (out, in); lists as above;
// partial (shares, out, in), unused with one share.
template <typename T, typename In>
void launch_linear_square_accumulate(
    const In* input,
    const In* grad_output,
    const int* lists,
    T* partial,
    T* fisher,
    int64_t shares,
    int64_t examples,
    int64_t tokens,
    int64_t in,
    int64_t out,
    T weight,
    cudaStream_t stream);

// Squares each example's sum over tokens: squares (B, C) = (sum_l D_il x_il)^2,
// or (sum_l D_il)^2 if normalized is null. grad_output and normalized are (B,
// L, C).
template <typename T, typename In>
void launch_token_sum_squares(
    const In* grad_output,
    const In* normalized,
    T* squares,
    int64_t examples,
    int64_t tokens,
    int64_t channels,
    cudaStream_t stream);

// fisher (C) += weight * sum_i squares (B, C), added in the order of examples.
template <typename T>
void launch_add_examples(
    const T* squares,
    T* fisher,
    int64_t examples,
    int64_t channels,
    T weight,
    cudaStream_t stream);

// ids: all B * L token ids, stably sorted; places: the index of each in (B, L).
// grad_output (B, L, D), fisher (V, D). An id outside [0, rows) stops the
// program.
template <typename T, typename In>
void launch_embedding_square_accumulate(
    const int64_t* ids,
    const int64_t* places,
    const In* grad_output,
    T* fisher,
    int64_t count,
    int64_t tokens,
    int64_t rows,
    int64_t channels,
    int64_t padding_idx,
    T weight,
    cudaStream_t stream);

// labels (B) from probabilities (B, K); -1 for a row that is not a
// distribution.
template <typename T>
void launch_sample_labels(
    const T* probabilities,
    const int64_t* indices,
    int64_t* labels,
    int64_t rows,
    int64_t columns,
    uint64_t seed,
    uint64_t sample,
    cudaStream_t stream);

// Multiplies each element of `input` by 0 or 1 / (1 - probability), see
// numeric/dropout_formula.h; stream_of_draws is the op's `stream`.
template <typename T, typename In>
void launch_dropout(
    const In* input,
    In* output,
    int64_t n,
    double probability,
    uint64_t seed,
    uint64_t stream_of_draws,
    cudaStream_t stream);

} // namespace merganser::kernels
