#include "merge/method.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <vector>

#include "io/error.h"

namespace merganser {
namespace {

constexpr MethodInfo kMethods[] = {
    {.method = MergeMethod::kLinear,
     .name = "linear",
     .formula = "sum w_t theta_t",
     .needs_base = false,
     .needs_fishers = false,
     .needs_base_fisher = false,
     .needs_num_examples = false,
     .normalizes = true,
     .normalizes_by_default = true},
    {.method = MergeMethod::kTaskArithmetic,
     .name = "task_arithmetic",
     .formula = "theta_0 + sum w_t tau_t",
     .needs_base = true,
     .needs_fishers = false,
     .needs_base_fisher = false,
     .needs_num_examples = false,
     .normalizes = true,
     .normalizes_by_default = false},
    {.method = MergeMethod::kFisher,
     .name = "fisher",
     .formula = "sum w_t H_t theta_t / sum w_t H_t",
     .needs_base = false,
     .needs_fishers = true,
     .needs_base_fisher = false,
     .needs_num_examples = true,
     .normalizes = false,
     .normalizes_by_default = false},
    {.method = MergeMethod::kFisherBase,
     .name = "fisher_base",
     .formula = "theta_0 + sum w_t H_t tau_t / (H_0 + sum w_t H_t)",
     .needs_base = true,
     .needs_fishers = true,
     .needs_base_fisher = true,
     .needs_num_examples = true,
     .normalizes = false,
     .normalizes_by_default = false},
    {.method = MergeMethod::kGradientMatching,
     .name = "gradient_matching",
     .formula = "theta_0 + sum w_t (H_0 + H_t) tau_t / (H_0 + sum w_t H_t)",
     .needs_base = true,
     .needs_fishers = true,
     .needs_base_fisher = true,
     .needs_num_examples = true,
     .normalizes = false,
     .normalizes_by_default = false},
    {.method = MergeMethod::kRemoval,
     .name = "removal",
     .formula = "theta_0 - sum w_t (H_0 + H_t) tau_t / (H_0 - sum w_t H_t)",
     .needs_base = true,
     .needs_fishers = true,
     .needs_base_fisher = true,
     .needs_num_examples = true,
     .normalizes = false,
     .normalizes_by_default = false},
    {.method = MergeMethod::kEwr,
     .name = "ewr",
     .formula = "(F_0 theta_0 - sum w_t F_t tau_t) / (F_0 + sum w_t F_t)",
     .needs_base = true,
     .needs_fishers = true,
     .needs_base_fisher = true,
     .needs_num_examples = false,
     .normalizes = false,
     .normalizes_by_default = false},
};

} // namespace

std::span<const MethodInfo> merge_methods() {
  return kMethods;
}

const MethodInfo& find_method(std::string_view name) {
  std::vector<std::string_view> names;
  for (const auto& row : kMethods) {
    if (row.name == name) {
      return row;
    }
    names.push_back(row.name);
  }
  throw InputError(fmt::format(
      "there is no merge method '{}'; the methods are {}",
      name,
      fmt::join(names, ", ")));
}

const MethodInfo& method_info(MergeMethod method) {
  for (const auto& row : kMethods) {
    if (row.method == method) {
      return row;
    }
  }
  throw Error("a merge method without a row in method.cpp");
}

} // namespace merganser
