#pragma once

#include <string>
#include <vector>

#include "merganser/plan/plan.h"

namespace merganser {

// The names of a tensor in the output, in the base and in each model, which
// differ where slices renumber layers.
struct TensorNames {
  std::string output;
  std::string base;
  std::vector<std::string> models;
  // 0 in the first layer and outside the layers, 1 in the last layer.
  double depth = 0;
};

// Plans one tensor of a slice. Expects the plan's inputs to be open; throws
// InputError for sources that do not fit.
TensorPlan plan_tensor(
    const MergePlan& plan,
    const PlanSlice& slice,
    const TensorNames& names);

// The tensor of a model, with its adapter: the adapter's own copy, or the
// stored tensor and its update. Throws InputError if neither has it.
TensorSource model_source(
    const MergePlan& plan,
    const PlanModel& model,
    const std::string& name);

// Tensors that the model's adapter stores whole and the model lacks, sorted, by
// the reference's names: usually the head of a model without one.
std::vector<std::string> added_tensors(
    const MergePlan& plan,
    const PlanModel& model);

} // namespace merganser
