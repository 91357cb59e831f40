#include "merganser/recipe/methods.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <vector>

#include "merganser/base/error.h"
#include "merganser/recipe/methods/block_gradient_matching.h"
#include "merganser/recipe/methods/breadcrumbs.h"
#include "merganser/recipe/methods/dare.h"
#include "merganser/recipe/methods/della.h"
#include "merganser/recipe/methods/ewr.h"
#include "merganser/recipe/methods/fisher.h"
#include "merganser/recipe/methods/fisher_base.h"
#include "merganser/recipe/methods/gradient_matching.h"
#include "merganser/recipe/methods/iso_c.h"
#include "merganser/recipe/methods/linear.h"
#include "merganser/recipe/methods/measured_gradient_matching.h"
#include "merganser/recipe/methods/model_stock.h"
#include "merganser/recipe/methods/passthrough.h"
#include "merganser/recipe/methods/regmean.h"
#include "merganser/recipe/methods/removal.h"
#include "merganser/recipe/methods/slerp.h"
#include "merganser/recipe/methods/subspace_gradient_matching.h"
#include "merganser/recipe/methods/task_arithmetic.h"
#include "merganser/recipe/methods/ties.h"
#include "merganser/recipe/methods/tsv_m.h"

namespace merganser {
namespace {

constexpr const MethodInfo* kMethods[] = {
    &methods::kLinear,
    &methods::kTaskArithmetic,
    &methods::kFisher,
    &methods::kFisherBase,
    &methods::kGradientMatching,
    &methods::kMeasuredGradientMatching,
    &methods::kSubspaceGradientMatching,
    &methods::kRemoval,
    &methods::kEwr,
    &methods::kBlockGradientMatching,
    &methods::kRegMean,
    &methods::kTsvM,
    &methods::kIsoC,
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
      "unknown merge method '{}'; available: {}",
      name,
      fmt::join(names, ", ")));
}

const MethodInfo& method_of(MergeFormula formula) {
  for (const MethodInfo* method : kMethods) {
    if (method->formula == formula && method->sparsify == Sparsify::kNone &&
        method->weights == WeightRule::kGiven &&
        method->matrix == MatrixRule::kNone) {
      return *method;
    }
  }
  throw Error("no merge method consists of this formula alone");
}

} // namespace merganser
