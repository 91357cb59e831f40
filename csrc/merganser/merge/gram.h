#pragma once

#include <cstdint>
#include <vector>

#include "merganser/base/api.h"
#include "merganser/plan/tensor_plan.h"

namespace merganser {

// A linear layer's weight W (out, in) merged with the Gram matrices
// G_t = N_t mean over examples of sum over tokens a a^T, (in, in), of its
// inputs a:
//
//   regmean                  (sum w_t W_t G_t) (sum w_t G_t)^-1, the elements
//                            of G_t beside the diagonal times `off_diagonal`
//   block_gradient_matching  W_0 + (sum w_t (W_t - W_0) (G_0 + G_t))
//                                  (G_0 + sum w_t G_t)^-1
//
// Before, r I is added to every G_t (regmean) or to G_0, r being `ridge` times
// the mean of the inverse matrix' diagonal: with one model, the result is still
// that model. All in float64, by Cholesky's decomposition; the same bits for
// any number of threads. (docs/method.md, section 2; Jin et al., 2212.09849.)
//
// Returns W's elements. Throws InputError for a value that is not finite, for a
// negative diagonal of a Gram matrix and for a sum that cannot be inverted.
MERGANSER_API std::vector<double> merge_with_grams(
    const TensorPlan& tensor,
    size_t output,
    int threads);

// Bytes that it holds, with what it returns for every output.
uint64_t gram_memory(const TensorPlan& tensor);

} // namespace merganser
