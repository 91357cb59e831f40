#include "merganser/recipe/method.h"

#include <algorithm>

namespace merganser {

const ParameterInfo* MethodInfo::find_parameter(std::string_view wanted) const {
  const auto found =
      std::ranges::find(parameters, wanted, &ParameterInfo::name);
  return found == parameters.end() ? nullptr : &*found;
}

double MethodInfo::fallback(std::string_view wanted) const {
  const ParameterInfo* parameter = find_parameter(wanted);
  return parameter == nullptr ? 0 : parameter->fallback.value_or(0);
}

bool MethodInfo::needs_statistics() const {
  return sparsify != Sparsify::kNone || weights == WeightRule::kSlerp ||
      weights == WeightRule::kModelStock || needs_grams() || is_spectral();
}

} // namespace merganser
