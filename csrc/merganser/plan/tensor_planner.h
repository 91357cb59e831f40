#pragma once

#include <string>
#include <vector>

#include "merganser/plan/plan.h"

namespace merganser {

// A tensor of the output, by its names in what it is made of.
struct TensorNames {
  std::string output;
  std::string base;
  std::vector<std::string> models;
  double depth = 0;
};

// Whether the result has the model's own bytes: passthrough with scale 1. (The
// formula, a sum from 0 on, would lose the sign of zeros.)
bool keeps_bytes(const MethodInfo& method, const TensorPlan& row);

// The row of a plan for a tensor that is made of a slice's models. The plan's
// inputs are open. Throws InputError for what is wrong with it.
TensorPlan plan_tensor(
    const MergePlan& plan,
    const PlanSlice& slice,
    const TensorNames& names);

} // namespace merganser
