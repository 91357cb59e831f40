#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "merganser/objective/solver.h"
#include "merganser/objective/subspace.h"

namespace merganser {
namespace {

// Factor of the off-diagonals of the tasks' Fishers, which have at most the
// rank of the number of examples.
constexpr double kOffDiagonal = 0.9;
constexpr size_t kFolds = 5; // parts of the examples, to choose a damping
constexpr int64_t kSubspaceTrials = 12;
// Eigenvalues below this share of the largest one are zero to rounding.
constexpr double kNoCurvature = 1e-12;

// 0.01 to 1000, two to a decade.
std::array<double, 11> dampings() {
  std::array<double, 11> values;
  for (size_t i = 0; i < values.size(); ++i) {
    values[i] = 0.01 * std::pow(10.0, static_cast<double>(i) / 2);
  }
  return values;
}

// A quadratic model g w + 1/2 w C w of the objective in the subspace.
double value(const SubspaceStatistics& model, const at::Tensor& w) {
  const at::Tensor curved = at::mv(model.fisher, w).mul_(0.5);
  return at::dot(w, curved.add_(model.gradient)).item<double>();
}

void add(
    SubspaceStatistics& sums,
    const SubspaceStatistics& more,
    double factor) {
  sums.gradient.add_(more.gradient, factor);
  sums.fisher.add_(more.fisher, factor);
}

// w = -(C + damping diag C)^-1 g. In coordinates in which the diagonal is one,
// because columns differ in size by orders of magnitude; columns and directions
// without curvature get 0.
at::Tensor solve(const SubspaceStatistics& model, double damping) {
  const at::Tensor diagonal = model.fisher.diagonal();
  const at::Tensor used = diagonal.gt(0);
  const at::Tensor scale = at::where(used, diagonal, 1.0).sqrt();
  at::Tensor scaled = model.fisher / scale.unsqueeze(1) / scale;
  scaled.mul_(used.unsqueeze(1)).mul_(used);
  scaled.diagonal().add_(
      at::where(used, at::full_like(scale, damping), at::ones_like(scale)));
  const auto [values, vectors] = at::linalg_eigh(scaled);
  const at::Tensor kept = values.gt(values.max() * kNoCurvature);
  const at::Tensor inverse =
      at::where(kept, at::where(kept, values, 1.0).reciprocal(), 0.0);
  const at::Tensor right = (model.gradient * used).neg_().div_(scale);
  const at::Tensor coordinates = at::mv(vectors.t(), right).mul_(inverse);
  return at::mv(vectors, coordinates).div_(scale);
}

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
    const std::vector<Part> parts = measure();
    const at::NoGradGuard no_grad;
    SolverStep result;
    const SubspaceStatistics prior = measure_prior();
    const SubspaceStatistics whole =
        model(prior, parts, [](size_t) { return true; });
    if (!whole.gradient.isfinite().all().item<bool>() ||
        !whole.fisher.isfinite().all().item<bool>()) {
      result.stopped = kNotFinite;
      return result;
    }
    damping_ = validated_damping(prior, parts);
    if (damping_ == dampings().back()) {
      result.stopped = kNoBetterStep;
      return result;
    }
    Arena& arena = objective_.arena();
    const double before = objective_.training();
    const at::Tensor start = arena.parameters.clone();
    double length = 1;
    for (; result.rejected < kSubspaceTrials; ++result.rejected) {
      move_in_subspace(arena, subspace_, solve(whole, damping_) * length);
      const double now = objective_.training();
      if (now < before) { // false for NaN
        result.objective = now;
        return result;
      }
      result.not_finite += std::isfinite(now) ? 0 : 1;
      arena.parameters.copy_(start);
      damping_ = std::max(4 * damping_, 1e-3);
      length /= 2;
    }
    result.stopped = kNoStep;
    return result;
  }

  // The damping of the last step; the next one does not depend on it.
  double setting() const override {
    return damping_;
  }
  void restore(double setting) override {
    damping_ = setting;
  }

 private:
  // A part of a task's examples, with statistics that estimate the whole
  // task's.
  struct Part {
    size_t task;
    size_t fold;
    double examples;
    SubspaceStatistics statistics;
  };

  std::vector<Part> measure() {
    std::vector<Part> parts;
    JointObjective& joint = objective_.joint();
    for (size_t t = 0; t < joint.tasks().size(); ++t) {
      const std::vector<int64_t>& all = objective_.training_examples()[t];
      for (size_t fold = 0; fold < kFolds; ++fold) {
        std::vector<int64_t> own;
        for (size_t i = fold; i < all.size(); i += kFolds) {
          own.push_back(all[i]);
        }
        if (own.empty()) {
          continue;
        }
        SubspaceStatistics found =
            subspace_statistics(joint, subspace_, t, own);
        found.fisher = kOffDiagonal * found.fisher +
            (1 - kOffDiagonal) * found.fisher.diagonal().diag();
        parts.push_back(
            {t, fold, static_cast<double>(own.size()), std::move(found)});
      }
    }
    return parts;
  }

  SubspaceStatistics measure_prior() {
    const JointObjective& joint = objective_.joint();
    if (joint.base_precision().defined()) {
      return quadratic_statistics(
          joint.arena(), subspace_, objective_.start(), joint.base_precision());
    }
    const auto columns = subspace_.columns();
    return {
        at::zeros({columns}, at::kDouble),
        at::zeros({columns, columns}, at::kDouble)};
  }

  // The model of J from the parts whose fold `takes` takes.
  template <typename Takes>
  SubspaceStatistics model(
      const SubspaceStatistics& prior,
      const std::vector<Part>& parts,
      const Takes& takes) const {
    std::vector<double> examples(objective_.joint().tasks().size());
    for (const Part& part : parts) {
      examples[part.task] += takes(part.fold) ? part.examples : 0;
    }
    SubspaceStatistics sums{prior.gradient.clone(), prior.fisher.clone()};
    for (const Part& part : parts) {
      if (takes(part.fold)) {
        add(sums, part.statistics, part.examples / examples[part.task]);
      }
    }
    return sums;
  }

  // The damping whose steps, found without each part of the examples in turn,
  // lower the model of that part most.
  double validated_damping(
      const SubspaceStatistics& prior,
      const std::vector<Part>& parts) const {
    const auto candidates = dampings();
    std::array<double, candidates.size()> totals{};
    for (size_t fold = 0; fold < kFolds; ++fold) {
      const auto others =
          model(prior, parts, [&](size_t f) { return f != fold; });
      const auto judge =
          model(prior, parts, [&](size_t f) { return f == fold; });
      for (size_t i = 0; i < candidates.size(); ++i) {
        totals[i] += value(judge, solve(others, candidates[i]));
      }
    }
    return candidates[std::ranges::min_element(totals) - totals.begin()];
  }

  MapObjective& objective_;
  Subspace subspace_;
  double damping_ = 0; // before the first step
};

} // namespace

std::unique_ptr<Solver> make_subspace_solver(
    const RefineOptions& options,
    MapObjective& objective) {
  return std::make_unique<SubspaceSolver>(options, objective);
}

} // namespace merganser
