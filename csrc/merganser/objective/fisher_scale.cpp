#include "merganser/objective/fisher_scale.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include <cmath>

#include "merganser/base/error.h"
#include "merganser/io/checkpoint.h"
#include "merganser/objective/joint_objective.h"

namespace merganser {
namespace {

// The model takes the place of the objective's base, and of its only expert.
ObjectiveOptions objective_options(const FisherScaleOptions& options) {
  return {
      .base = options.model,
      .base_fisher = {},
      .tasks =
          {{.expert = options.model,
            .data = options.data,
            .fisher = options.fisher}},
      .limit = options.limit,
      .seed = options.seed,
      .batch_size = options.batch_size,
      .max_length = options.max_length,
      .bfloat16 = options.bfloat16};
}

// A point s of the path, and its weight in the second difference.
struct WayPoint {
  double s;
  double weight;
};
constexpr WayPoint kWayPoints[] = {{0, 4}, {0.5, -8}, {1, 4}};

// The curvature of each example's loss along the path, by the example's
// position in the data.
at::Tensor curvatures(
    JointObjective& objective,
    const at::Tensor& way,
    const ProgressCallback& progress) {
  const JointObjective::Task& task = objective.tasks().front();
  at::Tensor sums = at::zeros({task.data.size()}, at::kDouble);
  at::Tensor& parameters = objective.arena().parameters;
  const at::Tensor begin = parameters.clone();
  const int64_t total = std::ssize(kWayPoints) * std::ssize(task.examples);
  int64_t done = 0;
  for (const auto& [s, weight] : kWayPoints) {
    parameters.copy_(begin).add_(way, s);
    objective.for_each_batch(
        0,
        task.examples,
        [&, weight = weight](
            const Batch& batch,
            const at::Tensor& logits,
            const at::Tensor& targets) {
          sums.index_add_(
              0,
              at::tensor(batch.indices, at::kLong),
              example_losses(logits, targets),
              weight);
          done += batch.size;
          if (progress) {
            progress(done, total, "");
          }
        });
  }
  return sums.index_select(0, at::tensor(task.examples, at::kLong));
}

} // namespace

FisherScale measure_fisher_scale(
    const FisherScaleOptions& options,
    const ProgressCallback& progress) {
  const at::NoGradGuard no_grad;
  JointObjective objective(objective_options(options));
  const at::Tensor way =
      objective.read_model(options.merge) - objective.arena().parameters;
  if (way.count_nonzero().item<int64_t>() == 0) {
    throw InputError(fmt::format(
        "{} has the weights of {}; expected a merge whose weights differ from "
        "the model's",
        options.merge.string(),
        options.model.string()));
  }
  const at::Tensor wide = way.to(at::kDouble);
  const double quadratic =
      (objective.read_precision(0).to(at::kDouble) * wide * wide)
          .sum()
          .item<double>() /
      objective.tasks().front().num_examples;
  if (!(quadratic > 0)) {
    throw InputError(fmt::format(
        "{}: the Fisher is 0 along the path from {} to {}, so that no factor "
        "gives it the loss's curvature",
        options.fisher.string(),
        options.model.string(),
        options.merge.string()));
  }
  const at::Tensor found = curvatures(objective, way, progress);
  const double mean = found.mean().item<double>();
  const double error = found.std().item<double>() /
      std::sqrt(static_cast<double>(found.numel()));
  if (!std::isfinite(mean)) {
    throw Error(fmt::format(
        "the loss along the path from {} to {} is not finite",
        options.model.string(),
        options.merge.string()));
  }
  if (mean <= 0) {
    throw InputError(fmt::format(
        "{}: expected a loss of positive curvature along the path from {} to "
        "{}, got {:.3g} ± {:.3g}; use more examples or another merge",
        options.data.string(),
        options.model.string(),
        options.merge.string(),
        mean,
        error));
  }
  return {
      .scale = {mean / quadratic, error / quadratic},
      .merge_hash = Checkpoint(options.merge).content_hash(),
      .num_examples_used = found.numel()};
}

} // namespace merganser
