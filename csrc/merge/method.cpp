#include "merge/method.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <vector>

#include "io/error.h"
#include "merge/methods/block_gradient_matching.h"
#include "merge/methods/breadcrumbs.h"
#include "merge/methods/breadcrumbs_ties.h"
#include "merge/methods/dare_linear.h"
#include "merge/methods/dare_ties.h"
#include "merge/methods/della.h"
#include "merge/methods/della_linear.h"
#include "merge/methods/ewr.h"
#include "merge/methods/fisher.h"
#include "merge/methods/fisher_base.h"
#include "merge/methods/gradient_matching.h"
#include "merge/methods/linear.h"
#include "merge/methods/model_stock.h"
#include "merge/methods/passthrough.h"
#include "merge/methods/regmean.h"
#include "merge/methods/removal.h"
#include "merge/methods/slerp.h"
#include "merge/methods/task_arithmetic.h"
#include "merge/methods/ties.h"

namespace merganser {
namespace {

constexpr const MethodInfo* kMethods[] = {
    &methods::kLinear,
    &methods::kTaskArithmetic,
    &methods::kFisher,
    &methods::kFisherBase,
    &methods::kGradientMatching,
    &methods::kRemoval,
    &methods::kEwr,
    &methods::kBlockGradientMatching,
    &methods::kRegMean,
    &methods::kTies,
    &methods::kDareLinear,
    &methods::kDareTies,
    &methods::kBreadcrumbs,
    &methods::kBreadcrumbsTies,
    &methods::kDella,
    &methods::kDellaLinear,
    &methods::kSlerp,
    &methods::kModelStock,
    &methods::kPassthrough,
};

} // namespace

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
      weights == WeightRule::kModelStock || needs_grams();
}

std::span<const MethodInfo* const> merge_methods() {
  return kMethods;
}

const MethodInfo& find_method(std::string_view name) {
  std::vector<std::string_view> names;
  for (const MethodInfo* method : kMethods) {
    if (method->name == name) {
      return *method;
    }
    names.push_back(method->name);
  }
  throw InputError(fmt::format(
      "there is no merge method '{}'; the methods are {}",
      name,
      fmt::join(names, ", ")));
}

const MethodInfo& method_of(MergeFormula formula) {
  for (const MethodInfo* method : kMethods) {
    if (method->formula == formula && method->sparsify == Sparsify::kNone &&
        method->weights == WeightRule::kGiven && !method->needs_grams()) {
      return *method;
    }
  }
  throw Error("a formula without a method of its own");
}

} // namespace merganser
