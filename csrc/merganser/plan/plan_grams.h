#pragma once

#include <vector>

#include "merganser/plan/tensor_planner.h"

namespace merganser {

// True if a tensor is merged with Gram matrices. `like`: the base's or first
// model's tensor.
bool has_a_gram(
    const MergePlan& plan,
    const PlanSlice& slice,
    const TensorNames& names,
    const TensorInfo& like);

// The Gram matrices of all models and, if the method uses it, of the base, or
// none of them. Throws InputError if only some files have one.
std::vector<GramSource> plan_grams(
    const MergePlan& plan,
    const PlanSlice& slice,
    const TensorNames& names,
    const TensorInfo& like);

} // namespace merganser
