#pragma once

#include "merganser/base/problems.h"
#include "merganser/plan/plan.h"

namespace merganser {

// Finds the weights of every model and group for subspace_gradient_matching,
// and those of every model for weight: auto. Collects problems: statistics of
// other models or tensors, weights that depend on the tensor. Does nothing for
// other recipes.
void plan_subspace(MergePlan& plan, Problems& problems);

// The weights of the models for a tensor. Throws InputError for a tensor that
// the subspace Fisher lacks.
std::vector<double> subspace_weights(
    const MergePlan& plan,
    const std::string& tensor,
    size_t output);

} // namespace merganser
