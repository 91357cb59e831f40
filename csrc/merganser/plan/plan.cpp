#include "merganser/plan/plan.h"

#include <algorithm>

namespace merganser {

bool normalizes_fishers(const MergePlan& plan) {
  return std::ranges::any_of(plan.tensors, [](const TensorPlan& tensor) {
    return std::ranges::any_of(tensor.parameters, [](const auto& parameters) {
      return parameters.normalize_fishers != 0;
    });
  });
}

} // namespace merganser
