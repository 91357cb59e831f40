#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "merganser/base/api.h"
#include "merganser/objective/inner_product_sink.h"
#include "merganser/objective/joint_objective.h"

namespace merganser {

// Gradient and curvature of a sum of losses in a subspace, with C columns.
struct SubspaceStatistics {
  at::Tensor gradient; // (C) P^T g, float64
  at::Tensor fisher; // (C, C) P^T F P with every off-diagonal, float64
};

// For a_t l_t at the objective's parameters, estimated from `examples`: the
// exact gradient and Fisher in the subspace. For K classes, K - 1 backward
// passes: every direction in the logits that sums to zero is a combination of
// those to the last class.
MERGANSER_API SubspaceStatistics subspace_statistics(
    JointObjective& objective,
    const Subspace& subspace,
    size_t task,
    const std::vector<int64_t>& examples);

// The same of 1/2 |theta - theta_0|^2_H with a diagonal H, as exact products.
MERGANSER_API SubspaceStatistics quadratic_statistics(
    const Arena& arena,
    const Subspace& subspace,
    const at::Tensor& start,
    const at::Tensor& precision);

// theta += P w, in place.
MERGANSER_API void move_in_subspace(
    Arena& arena,
    const Subspace& subspace,
    const at::Tensor& weights);

} // namespace merganser
