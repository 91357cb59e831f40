#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>

#include "merganser/objective/solver.h"
#include "merganser/objective/subspace.h"

namespace merganser {
namespace {

// Factor of the off-diagonals of the tasks' Fishers, which have at most the
// rank of the number of examples.
constexpr double kOffDiagonal = 0.9;
constexpr double kFirstDamping = 0.1;
constexpr double kMinDamping = 1e-4;
constexpr double kFactor = 4;
constexpr int64_t kTrials = 10;
constexpr double kRidge = 1e-12; // for columns that are zero

class SubspaceSolver : public Solver {
 public:
  SubspaceSolver(const RefineOptions& options, MapObjective& objective)
      : objective_(objective) {
    subspace_.groups = make_groups(objective.arena(), options.groups);
    for (size_t t = 0; t < objective.joint().tasks().size(); ++t) {
      subspace_.task_vectors.push_back(
          objective.joint().read_expert(t).sub_(objective.start()));
    }
  }

  SolverStep step(int64_t) override {
    const SubspaceStatistics sums = statistics();
    const at::NoGradGuard no_grad;
    Arena& arena = objective_.arena();
    const double before = objective_.training();
    const at::Tensor start = arena.parameters.clone();
    SolverStep result;
    for (; result.rejected < kTrials; ++result.rejected) {
      move_in_subspace(arena, subspace_, solve(sums));
      const double now = objective_.training();
      if (now < before) { // false for NaN
        result.objective = now;
        damping_ = std::max(kMinDamping, damping_ / kFactor);
        return result;
      }
      arena.parameters.copy_(start);
      damping_ *= kFactor;
    }
    result.stopped = true;
    return result;
  }

  double setting() const override {
    return damping_;
  }
  void restore(double setting) override {
    damping_ = setting;
  }

 private:
  SubspaceStatistics statistics() {
    JointObjective& joint = objective_.joint();
    SubspaceStatistics sums;
    if (joint.base_precision().defined()) {
      sums = quadratic_statistics(
          joint.arena(), subspace_, objective_.start(), joint.base_precision());
    } else {
      sums.gradient = at::zeros({subspace_.columns()}, at::kDouble);
      sums.fisher =
          at::zeros({subspace_.columns(), subspace_.columns()}, at::kDouble);
    }
    for (size_t t = 0; t < joint.tasks().size(); ++t) {
      const SubspaceStatistics task = subspace_statistics(
          joint, subspace_, t, objective_.training_examples()[t]);
      sums.gradient.add_(task.gradient);
      const at::Tensor diagonal = task.fisher.diagonal();
      sums.fisher.add_(task.fisher, kOffDiagonal);
      sums.fisher.diagonal().add_(diagonal, 1 - kOffDiagonal);
    }
    return sums;
  }

  // -(C + damping diag(C))^-1 g
  at::Tensor solve(const SubspaceStatistics& sums) const {
    const at::Tensor diagonal = sums.fisher.diagonal();
    at::Tensor matrix = sums.fisher.clone();
    const double ridge = kRidge * diagonal.max().item<double>();
    matrix.diagonal().copy_(diagonal * (1 + damping_) + ridge);
    return at::linalg_solve(matrix, sums.gradient).neg();
  }

  MapObjective& objective_;
  Subspace subspace_;
  double damping_ = kFirstDamping;
};

} // namespace

std::unique_ptr<Solver> make_subspace_solver(
    const RefineOptions& options,
    MapObjective& objective) {
  return std::make_unique<SubspaceSolver>(options, objective);
}

} // namespace merganser
