#include "merganser/objective/subspace_fisher.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include <algorithm>

#include "merganser/base/error.h"
#include "merganser/io/checkpoint.h"
#include "merganser/objective/joint_objective.h"
#include "merganser/objective/subspace.h"

namespace merganser {
namespace {

// The number that cross-validation commonly has.
constexpr int64_t kMaxFolds = 10;

void check(const SubspaceFisherOptions& options) {
  if (options.points < 1) {
    throw InputError(
        fmt::format("expected at least one point, got {}", options.points));
  }
}

// The base is one more task of the objective, the last: its model and data are
// read and checked like an expert's.
ObjectiveOptions objective_options(const SubspaceFisherOptions& options) {
  ObjectiveOptions objective{
      .base = options.base.model,
      .base_fisher = {},
      .tasks = {},
      .limit = options.limit,
      .seed = options.seed,
      .batch_size = options.batch_size,
      .max_length = options.max_length,
      .bfloat16 = options.bfloat16};
  for (const auto& [model, data] : options.experts) {
    objective.tasks.push_back({.expert = model, .data = data, .fisher = {}});
  }
  objective.tasks.push_back(
      {.expert = options.base.model, .data = options.base.data, .fisher = {}});
  return objective;
}

std::vector<double> values_of(const at::Tensor& tensor) {
  const double* data = tensor.const_data_ptr<double>();
  return {data, data + tensor.numel()};
}

class SubspaceEstimator {
 public:
  SubspaceEstimator(
      const SubspaceFisherOptions& options,
      const ProgressCallback& progress)
      : options_(options),
        progress_(progress),
        objective_(objective_options(options)) {
    const at::NoGradGuard no_grad;
    const at::Tensor& base = objective_.arena().parameters;
    origin_ = base.clone();
    mean_ = at::zeros_like(base);
    for (size_t t = 0; t < options.experts.size(); ++t) {
      const at::Tensor tau = objective_.read_expert(t) - origin_;
      subspace_.task_vectors.push_back(tau);
      mean_.add_(tau, 1 / static_cast<double>(options.experts.size()));
    }
    mean_.add_(origin_);
    for (const auto& direction : options.directions) {
      subspace_.task_vectors.push_back(
          objective_.read_model(direction) - origin_);
    }
    subspace_.groups = make_groups(objective_.arena(), options.groups);
    for (const JointObjective::Task& task : objective_.tasks()) {
      total_ += options.points * std::ssize(task.examples);
    }
  }

  SubspaceFisher run() {
    SubspaceFisher found;
    found.groups = tensors_by_group(objective_.arena(), subspace_.groups);
    found.points = options_.points;
    found.seed = options_.seed;
    for (size_t t = 0; t < options_.experts.size(); ++t) {
      found.experts.push_back(estimate(t, origin_ + subspace_.task_vectors[t]));
    }
    for (const auto& direction : options_.directions) {
      found.experts.push_back(
          {.model_hash = Checkpoint(direction).content_hash()});
    }
    found.base = estimate(options_.experts.size(), origin_);
    found.base.gradient.clear();
    return found;
  }

 private:
  // The weight of the trapezoidal rule.
  double weight(int64_t point) const {
    const int64_t last = options_.points - 1;
    if (last == 0) {
      return 1;
    }
    return (point == 0 || point == last ? 0.5 : 1.0) /
        static_cast<double>(last);
  }

  SubspaceFisher::Loss estimate(size_t task, const at::Tensor& model) {
    const std::vector<int64_t>& examples = objective_.tasks()[task].examples;
    const int64_t folds = std::min<int64_t>(kMaxFolds, std::ssize(examples));
    if (folds < 2) {
      throw InputError(fmt::format(
          "{}: expected at least two examples",
          objective_.options().tasks[task].data.string()));
    }
    const int64_t width = subspace_.columns();
    const auto options = at::TensorOptions(at::kDouble);
    at::Tensor fisher = at::zeros({folds, width, width}, options);
    at::Tensor gradient = at::zeros({folds, width}, options);
    SubspaceFisher::Loss found{
        .model_hash =
            Checkpoint(objective_.options().tasks[task].expert).content_hash(),
        .num_examples = objective_.tasks()[task].data.size(),
        .counts = {},
        .fisher = {},
        .gradient = {}};
    // Every folds-th example belongs to a fold.
    found.counts.assign(folds, 0);
    std::vector<int64_t> fold_of(objective_.tasks()[task].data.size());
    for (size_t i = 0; i < examples.size(); ++i) {
      const auto fold = static_cast<int64_t>(i) % folds;
      fold_of[examples[i]] = fold;
      ++found.counts[fold];
    }
    for (int64_t point = 0; point < options_.points; ++point) {
      move(model, point);
      add(task, fold_of, point == 0, weight(point), fisher, gradient);
    }
    found.fisher = values_of(fisher);
    found.gradient = values_of(gradient);
    return found;
  }

  // Moves the parameters to a point of the path from a model to the average.
  void move(const at::Tensor& model, int64_t point) {
    const at::NoGradGuard no_grad;
    const double share = options_.points == 1
        ? 0
        : static_cast<double>(point) / static_cast<double>(options_.points - 1);
    objective_.arena().parameters.copy_(
        share == 0 ? model : at::lerp(model, mean_, share));
  }

  // Adds to fisher (K, C, C) and gradient (K, C) of the folds.
  void add(
      size_t task,
      const std::vector<int64_t>& fold_of,
      bool with_gradient,
      double weight,
      at::Tensor& fisher,
      at::Tensor& gradient) {
    const std::vector<int64_t>& examples = objective_.tasks()[task].examples;
    for_each_products(
        objective_,
        subspace_,
        task,
        examples,
        [&](const ExampleProducts& batch, int64_t done) {
          const at::Tensor weighted = at::bmm(batch.covariance, batch.jacobian);
          for (size_t i = 0; i < batch.indices.size(); ++i) {
            const int64_t fold = fold_of[batch.indices[i]];
            const auto row = static_cast<int64_t>(i);
            if (with_gradient) {
              gradient[fold].add_(batch.gradient[row]);
            }
            fisher[fold].addmm_(
                batch.jacobian[row].t(), weighted[row], 1, weight);
          }
          if (progress_) {
            progress_(done_ + done, total_, "");
          }
        });
    done_ += std::ssize(examples);
  }

  const SubspaceFisherOptions& options_;
  const ProgressCallback& progress_;
  JointObjective objective_;
  Subspace subspace_;
  at::Tensor origin_; // theta_0
  at::Tensor mean_; // of the experts
  int64_t total_ = 0;
  int64_t done_ = 0;
};

} // namespace

SubspaceFisher estimate_subspace_fisher(
    const SubspaceFisherOptions& options,
    const ProgressCallback& progress) {
  check(options);
  return SubspaceEstimator(options, progress).run();
}

} // namespace merganser
