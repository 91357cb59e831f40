#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>

#include "merganser/fisher/fisher.h"
#include "merganser/objective/solver.h"

namespace merganser {
namespace {

constexpr double kQuantile = 0.999;
constexpr int64_t kSample = 1'000'000; // elements that the quantile looks at
constexpr int64_t kHalvings = 20;
// Armijo: the share of the decrease that the gradient promises.
constexpr double kDecrease = 1e-4;

double upper_quantile(const at::Tensor& diagonal) {
  const int64_t stride = std::max<int64_t>(1, diagonal.numel() / kSample);
  const at::Tensor sample = diagonal.slice(0, 0, std::nullopt, stride).clone();
  auto* values = sample.data_ptr<float>();
  const auto place =
      static_cast<int64_t>(kQuantile * static_cast<double>(sample.numel() - 1));
  std::nth_element(values, values + place, values + sample.numel());
  return values[place];
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
    const double before = objective_.gradient();
    if (!arena.gradients.isfinite().all().item<bool>()) {
      return {.stopped = kNotFinite};
    }
    const at::Tensor direction = arena.gradients / damped_curvature();
    const double slope = at::dot(arena.gradients, direction).item<double>();
    const at::Tensor start = arena.parameters.clone();
    SolverStep result;
    for (; result.rejected < kHalvings; ++result.rejected) {
      arena.parameters.copy_(start).sub_(direction, length_);
      const double now = objective_.training();
      if (now <= before - kDecrease * length_ * slope) { // false for NaN
        result.objective = now;
        length_ = std::min(1.0, 2 * length_);
        return result;
      }
      length_ /= 2;
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
    return length_;
  }
  void restore(double setting) override {
    length_ = setting;
  }

 private:
  // H_0 + sum_t a_t H_t + damping
  const at::Tensor& damped_curvature() {
    // Damping makes every element positive once they are known.
    if (!options_.refresh && curvature_[0].item<float>() > 0) {
      return curvature_;
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
    const double damping = upper_quantile(curvature_);
    const double largest = curvature_.max().item<double>();
    // The quantile is zero if nearly all Fishers are.
    curvature_.add_(damping > 0 ? damping : std::max(largest, 1.0));
    return curvature_;
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
  double length_ = 1;
};

} // namespace

std::unique_ptr<Solver> make_newton_solver(
    const RefineOptions& options,
    MapObjective& objective) {
  return std::make_unique<NewtonSolver>(options, objective);
}

} // namespace merganser
