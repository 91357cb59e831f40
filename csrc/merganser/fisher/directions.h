#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "merganser/base/api.h"

namespace merganser {

// The Fisher of an example with logits z(theta) and Jacobian J = dz/dtheta is
//   F_i = sum_k (J^T v_k)^2.
// An estimator is a choice of the vectors v_k: their second moment
// sum_k v_k v_k^T is, exactly or in expectation, that of the gradient of
// log p(y | x_i) by the logits, e_y - p.

// K - 1 tensors (B, K), one vector per example in each, with
// sum_k v_k v_k^T = diag(p) - p p^T: its Cholesky factor. Class k is compared
// with all later classes; for two classes this is sqrt(p0 p1) (1, -1).
MERGANSER_API std::vector<at::Tensor> exact_directions(
    const at::Tensor& logits);

// e_y - p for given labels (B): (B, K).
MERGANSER_API at::Tensor label_direction(
    const at::Tensor& logits,
    const at::Tensor& labels);

} // namespace merganser
