#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "merganser/objective/map_objective.h"
#include "merganser/objective/refine_options.h"
#include "merganser/train/train_state.h"

namespace merganser {

// Outcome of a solver's step.
struct SolverStep {
  int64_t rejected = 0; // trials that were not finite or not lower
  int64_t not_finite = 0; // of these, trials that were not finite
  bool diverged = false; // no step can begin at these parameters
  // Why no trial was accepted; the parameters are then as before.
  std::optional<std::string> stopped = {};
  std::optional<double> objective = {}; // J at the new parameters, if known
};

// Reasons to stop.
constexpr const char* kNotFinite = "the gradient is not finite";
constexpr const char* kObjectiveNotFinite = "the objective is not finite";
constexpr const char* kNoBetterStep = "cross-validation finds no better step";
constexpr const char* kNoStep = "no step lowers the objective";

// Moves the parameters of an objective's arena towards a minimum.
class Solver {
 public:
  virtual ~Solver() = default;

  virtual SolverStep step(int64_t number) = 0; // from 1
  // Called where a step diverged, or the objective after it is not finite: the
  // next one begins at the best point so far. False: it would be the same step.
  virtual bool reject() {
    return false;
  }
  virtual int64_t steps_per_evaluation() const {
    return 1;
  }

  // State next to the parameters, for resuming: see RefineStep::setting.
  virtual double setting() const = 0;
  virtual void restore(double setting) = 0;
  virtual FlatArrays arrays() {
    return {};
  }
};

std::unique_ptr<Solver> make_adamw_solver(
    const RefineOptions& options,
    MapObjective& objective);

// theta -= (H_0 + sum_t a_t H_t + damping)^-1 gradient; the damping begins at
// an upper quantile of the diagonal and grows until J falls as the model
// promises.
std::unique_ptr<Solver> make_newton_solver(
    const RefineOptions& options,
    MapObjective& objective);

// Gauss-Newton in the span of the task vectors split by group, with every
// off-diagonal of the Fisher; damped until J falls.
std::unique_ptr<Solver> make_subspace_solver(
    const RefineOptions& options,
    MapObjective& objective);

} // namespace merganser
