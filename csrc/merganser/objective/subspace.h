#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <vector>

#include "merganser/base/api.h"
#include "merganser/objective/inner_product_sink.h"
#include "merganser/objective/joint_objective.h"

namespace merganser {

// The examples of a batch in a subspace, float64. The loss of example i has the
// gradient P^T g_i and the Fisher U_i^T (diag(p_i) - p_i p_i^T) U_i.
struct ExampleProducts {
  at::Tensor jacobian; // U (B, K - 1, C): products of J^T (e_k - e_K)
  at::Tensor covariance; // of the first K - 1 classes (B, K - 1, K - 1)
  at::Tensor gradient; // (B, C), at the task's targets
  const std::vector<int64_t>& indices; // positions in the task's data (B)
};

// Calls use(products, number of examples done) for the batches of examples of
// task t at the objective's parameters. For K classes, K - 1 backward passes:
// every direction in the logits that sums to zero is a combination of those to
// the last class.
using UseProducts =
    std::function<void(const ExampleProducts& products, int64_t done)>;
MERGANSER_API void for_each_products(
    JointObjective& objective,
    const Subspace& subspace,
    size_t task,
    const std::vector<int64_t>& examples,
    const UseProducts& use);

// Gradient and curvature of a sum of losses in a subspace, with C columns.
struct SubspaceStatistics {
  at::Tensor gradient; // (C) P^T g, float64
  at::Tensor fisher; // (C, C) P^T F P with every off-diagonal, float64
};

// The exact gradient and Fisher in the subspace of a_t l_t at the objective's
// parameters, estimated from `examples`.
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
