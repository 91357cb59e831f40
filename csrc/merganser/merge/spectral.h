#pragma once

#include <cstdint>
#include <vector>

#include "merganser/base/api.h"
#include "merganser/plan/tensor_plan.h"

namespace merganser {

// Merges the task vectors tau_t = W_t - W_0 of a linear layer's weight by their
// singular vectors; lambda times the result is added to W_0:
//
//   tsv_m  U S V^T: the first k = min(out, in) / T singular values of every
//          tau_t in S, and their vectors concatenated in U' and V'; U = U'
//          (U'^T U')^-1/2 and V alike are the closest matrices with orthonormal
//          columns (Gargiulo et al., 2412.00081)
//   iso_c  mean(S) U V^T, with U S V^T = sum tau_t and the mean over min(out,
//          in) singular values (Marczak et al., 2502.04959)
//
// Singular vectors of values that are 0, up to rounding, are not defined, and
// are left out. Arithmetic is float64, by eigendecompositions of products such
// as tau_t tau_t^T: the error of a singular vector is that of rounding times
// the square of the largest singular value over its own. The bits do not depend
// on the number of threads.
//
// Throws InputError for a value that is not finite.
MERGANSER_API std::vector<double> merge_task_vectors(
    const TensorPlan& tensor,
    int threads);

// Size of its buffers in bytes, with the result.
uint64_t spectral_memory(const TensorPlan& tensor);

} // namespace merganser
