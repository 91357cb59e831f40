#pragma once

#include <cstdint>
#include <vector>

#include "merganser/base/api.h"
#include "merganser/plan/tensor_plan.h"

namespace merganser {

// Merges a linear layer's weight W (out, in) with the Gram matrices
// G_t = N_t mean over examples of sum over tokens a a^T, (in, in), of its
// inputs a:
//
//   regmean                  (sum w_t W_t G_t) (sum w_t G_t)^-1, off-diagonal
//                            elements of G_t times `off_diagonal`
//   block_gradient_matching  W_0 + (sum w_t (W_t - W_0) (G_0 + G_t))
//                                  (G_0 + sum w_t G_t)^-1
//
// A Gram matrix of a task vector is N_t S_t m, with S_t = tau_t^T tau_t /
// |tau_t|^2, tau_t = W_t - W_0, and m the trace of the base's mean Gram matrix
// (1 without that): the rows of tau_t are sums of inputs, and the inputs of all
// tasks are taken to be as long as the base's. (Cheng et al., 2503.08099.)
//
// First, r I is added to G_0, or (regmean) r / (sum w_t) I to every G_t, so
// that the matrix to invert gets r I; r is `ridge` times the mean of its
// diagonal. A single model is returned, up to rounding. Arithmetic is float64,
// by a Cholesky decomposition; the bits do not depend on the number of threads.
// (docs/method.md, section 2; Jin et al., 2212.09849.)
//
// Returns W's elements. Throws InputError for a value that is not finite, for a
// Gram matrix that is asymmetric or has a negative diagonal, and for a sum that
// cannot be inverted.
MERGANSER_API std::vector<double> merge_with_grams(
    const TensorPlan& tensor,
    size_t output,
    int threads);

// Size of its buffers in bytes, with the results for every output.
uint64_t gram_memory(const TensorPlan& tensor);

} // namespace merganser
