#include "merganser/objective/refine_options.h"

#include <fmt/format.h>

#include <array>
#include <cmath>
#include <utility>

#include "merganser/base/error.h"

namespace merganser {
namespace {

template <typename Value, size_t N>
using Names = std::array<std::pair<Value, const char*>, N>;

constexpr Names<RefineSolver, 3> kSolvers = {{
    {RefineSolver::kAdamW, "adamw"},
    {RefineSolver::kNewton, "newton"},
    {RefineSolver::kSubspace, "subspace"},
}};
constexpr Names<RefineTargets, 2> kTargets = {{
    {RefineTargets::kLabels, "labels"},
    {RefineTargets::kPredictions, "predictions"},
}};

template <typename Value, size_t N>
std::string name_of(const Names<Value, N>& names, Value value) {
  for (const auto& [its_value, name] : names) {
    if (its_value == value) {
      return name;
    }
  }
  return "";
}

constexpr int64_t kMaxSteps = 1'000'000;

} // namespace

RefineSolver parse_refine_solver(const std::string& name) {
  for (const auto& [value, its_name] : kSolvers) {
    if (name == its_name) {
      return value;
    }
  }
  throw InputError(fmt::format(
      "unknown solver '{}'; expected adamw, newton or subspace", name));
}

std::string refine_solver_name(RefineSolver solver) {
  return name_of(kSolvers, solver);
}

RefineTargets parse_refine_targets(const std::string& name) {
  for (const auto& [value, its_name] : kTargets) {
    if (name == its_name) {
      return value;
    }
  }
  throw InputError(fmt::format(
      "unknown targets '{}'; expected labels or predictions", name));
}

std::string refine_targets_name(RefineTargets targets) {
  return name_of(kTargets, targets);
}

int64_t RefineOptions::steps_or_default() const {
  if (steps) {
    return *steps;
  }
  switch (solver) {
    case RefineSolver::kAdamW:
      return 60;
    case RefineSolver::kNewton:
      return 10;
    default:
      return 4;
  }
}

void check_options(const RefineOptions& options) {
  check_options(options.objective);
  const int64_t steps = options.steps_or_default();
  if (steps < 1 || steps > kMaxSteps) {
    throw InputError(fmt::format(
        "steps must be between 1 and {}, got {}", kMaxSteps, steps));
  }
  if (options.refresh && options.solver != RefineSolver::kNewton) {
    throw InputError(fmt::format(
        "refresh applies to newton, not to {}",
        refine_solver_name(options.solver)));
  }
  if (!(options.held_out > 0 && options.held_out < 1)) {
    throw InputError(fmt::format(
        "held-out must be between 0 and 1 (exclusive), got {}",
        options.held_out));
  }
  if (!(std::isfinite(options.learning_rate) && options.learning_rate > 0)) {
    throw InputError(fmt::format(
        "lr must be a positive number, got {}", options.learning_rate));
  }
}

} // namespace merganser
