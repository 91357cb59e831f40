#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "merganser/fisher/fisher.h"
#include "merganser/objective/solver.h"

namespace merganser {
namespace {

constexpr double kQuantile = 0.999;
constexpr int64_t kSample = 1'000'000; // elements sampled for the quantile
constexpr int64_t kNewtonTrials = 20;
constexpr double kFactor = 4; // between the dampings of two trials
// Share of the decrease along the gradient that a step must bring. The
// quadratic model promises at least one half; a step with a smaller ratio has
// overshot.
constexpr double kDecrease = 0.25;

double upper_quantile(const at::Tensor& diagonal) {
  const int64_t stride = std::max<int64_t>(1, diagonal.numel() / kSample);
  const at::Tensor sample = diagonal.slice(0, 0, std::nullopt, stride).clone();
  auto* values = sample.data_ptr<float>();
  const auto place =
      static_cast<int64_t>(kQuantile * static_cast<double>(sample.numel() - 1));
  std::nth_element(values, values + place, values + sample.numel());
  return values[place];
}

double first_damping(const at::Tensor& curvature) {
  const double damping = upper_quantile(curvature);
  // The quantile is zero if nearly all Fishers are.
  return damping > 0 ? damping : std::max(curvature.max().item<double>(), 1.0);
}

Dataset select(const Dataset& data, const std::vector<int64_t>& examples) {
  Dataset part{.path = data.path, .ids = {}, .labels = {}};
  for (const int64_t i : examples) {
    part.ids.push_back(data.ids[i]);
    part.labels.push_back(data.labels[i]);
    if (!data.token_types.empty()) {
      part.token_types.push_back(data.token_types[i]);
    }
  }
  return part;
}

class NewtonSolver : public Solver {
 public:
  NewtonSolver(const RefineOptions& options, MapObjective& objective)
      : options_(options),
        objective_(objective),
        curvature_(objective.arena().zeros()) {}

  SolverStep step(int64_t) override {
    const at::NoGradGuard no_grad;
    Arena& arena = objective_.arena();
    measure_curvature();
    const double before = objective_.gradient();
    if (!arena.gradients.isfinite().all().item<bool>() ||
        !curvature_.isfinite().all().item<bool>()) {
      return {.stopped = kNotFinite};
    }
    damping_ = damping_ > 0 ? damping_ / kFactor : first_damping(curvature_);
    const at::Tensor start = arena.parameters.clone();
    SolverStep result;
    for (; result.rejected < kNewtonTrials &&
         damping_ <= std::numeric_limits<float>::max();
         ++result.rejected) {
      const at::Tensor direction = arena.gradients / (curvature_ + damping_);
      const double slope = at::dot(arena.gradients, direction).item<double>();
      arena.parameters.copy_(start).sub_(direction);
      const double now = objective_.training();
      if (now <= before - kDecrease * slope) { // false for NaN
        result.objective = now;
        return result;
      }
      result.not_finite += std::isfinite(now) ? 0 : 1;
      damping_ *= kFactor;
    }
    arena.parameters.copy_(start);
    result.stopped = kNoStep;
    return result;
  }

  // Fixed curvature is that of the starting point, also in a resumed run.
  FlatArrays arrays() override {
    return options_.refresh ? FlatArrays()
                            : FlatArrays{{"curvature", curvature_}};
  }
  double setting() const override {
    return damping_;
  }
  void restore(double setting) override {
    damping_ = setting;
  }

 private:
  // H_0 + sum_t a_t H_t
  void measure_curvature() {
    if (!options_.refresh && damping_ > 0) {
      return; // known from the first step
    }
    const at::Tensor& base = objective_.joint().base_precision();
    if (base.defined()) {
      curvature_.copy_(base);
    } else {
      curvature_.zero_();
    }
    for (size_t t = 0; t < objective_.joint().tasks().size(); ++t) {
      add_task_curvature(t);
    }
  }

  void add_task_curvature(size_t t) {
    JointObjective& joint = objective_.joint();
    const JointObjective::Task& task = joint.tasks()[t];
    if (joint.options().tasks[t].fisher && !options_.refresh) {
      curvature_.add_(joint.read_precision(t), task.weight);
      return;
    }
    const FisherResult fisher = estimate_fisher(
        joint.model(),
        select(task.data, objective_.training_examples()[t]),
        task.pad_id,
        {.batch_size = joint.options().batch_size,
         .bfloat16 = joint.options().bfloat16});
    const double scale = task.weight * task.num_examples;
    for (const Arena::Entry& entry : joint.arena().entries()) {
      for (const auto& [name, mean] : fisher.diagonal) {
        if (name == entry.name) {
          Arena::view(curvature_, entry).add_(mean, scale);
        }
      }
    }
  }

  const RefineOptions& options_;
  MapObjective& objective_;
  at::Tensor curvature_;
  double damping_ = 0; // of the last step; 0: before the first
};

} // namespace

std::unique_ptr<Solver> make_newton_solver(
    const RefineOptions& options,
    MapObjective& objective) {
  return std::make_unique<NewtonSolver>(options, objective);
}

} // namespace merganser
