#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "merganser/base/api.h"
#include "merganser/objective/groups.h"
#include "merganser/objective/objective_options.h"

namespace merganser {

enum class RefineSolver { kAdamW, kNewton, kSubspace };
enum class RefineTargets { kLabels, kPredictions };

// Parse adamw, newton or subspace; labels or predictions. Throw InputError for
// any other name.
MERGANSER_API RefineSolver parse_refine_solver(const std::string& name);
MERGANSER_API std::string refine_solver_name(RefineSolver solver);
MERGANSER_API RefineTargets parse_refine_targets(const std::string& name);
MERGANSER_API std::string refine_targets_name(RefineTargets targets);

struct RefineOptions {
  ObjectiveOptions objective;
  std::filesystem::path model; // where the steps start
  std::filesystem::path out;
  RefineSolver solver = RefineSolver::kSubspace;
  RefineTargets targets = RefineTargets::kLabels;
  std::optional<int64_t> steps = {}; // the solver's default otherwise
  double learning_rate = 1e-5; // adamw
  double held_out = 0.2; // share of the examples that selects the step
  Grouping groups = Grouping::kBlock; // subspace
  bool refresh = false; // newton: estimate the Fishers at every step
  bool resume = false; // continue an interrupted run

  int64_t steps_or_default() const;
};

// Throws InputError for an option out of range.
MERGANSER_API void check_options(const RefineOptions& options);

} // namespace merganser
