#include "merganser/plan/plan.h"

#include <algorithm>

#include "merganser/plan/compare_tensors.h"

namespace merganser {
namespace {

bool changes(const PlanModel& model, const std::string& name) {
  return model.adapter && model.adapter_names.find(name) != nullptr;
}

} // namespace

bool normalizes_fishers(const MergePlan& plan) {
  return std::ranges::any_of(plan.tensors, [](const TensorPlan& tensor) {
    return std::ranges::any_of(tensor.parameters, [](const auto& parameters) {
      return parameters.normalize_fishers != 0;
    });
  });
}

std::set<size_t> fishers_of(const MergePlan& plan) {
  std::set<size_t> fishers;
  const auto add = [&](std::optional<size_t> fisher) {
    if (fisher) {
      fishers.insert(*fisher);
    }
  };
  add(plan.base_fisher);
  for (const PlanSlice& slice : plan.slices) {
    for (const PlanModel& model : slice.models) {
      add(model.fisher);
    }
  }
  return fishers;
}

bool is_unchanged(
    const MergePlan& plan,
    const PlanSlice& slice,
    const StoredTensor& expected,
    const std::vector<std::string>& names) {
  for (size_t t = 0; t < names.size(); ++t) {
    const PlanModel& model = slice.models[t];
    const NamedCheckpoint weights = plan.named(model.weights);
    if (weights.find(names[t]) == nullptr) {
      if (!is_constant_tensor(expected.info())) {
        return false;
      }
    } else if (
        changes(model, names[t]) ||
        !same_values(weights.at(names[t]), expected)) {
      return false;
    }
  }
  return true;
}

} // namespace merganser
