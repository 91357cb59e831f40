#include "merganser/objective/map_objective.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "merganser/base/error.h"
#include "merganser/text/batching.h"

namespace merganser {
namespace {

// Separates this use of the seed from those of text/batching.h.
constexpr uint64_t kHeldOutStream = uint64_t{1} << 60;

ObjectiveOptions with_targets(const RefineOptions& options) {
  ObjectiveOptions objective = options.objective;
  objective.labels = options.targets == RefineTargets::kLabels;
  return objective;
}

} // namespace

MapObjective::MapObjective(const RefineOptions& options)
    : joint_(with_targets(options)), start_(joint_.arena().parameters.clone()) {
  const at::NoGradGuard no_grad;
  if (joint_.base_precision().defined()) {
    prior_.emplace(start_, joint_.base_precision());
  }
  for (size_t t = 0; t < joint_.tasks().size(); ++t) {
    split(t, options);
    if (options.targets == RefineTargets::kPredictions) {
      predict_targets(t);
    }
  }
  arena().parameters.copy_(joint_.read_model(options.model));
}

void MapObjective::split(size_t t, const RefineOptions& options) {
  const JointObjective::Task& task = joint_.tasks()[t];
  std::vector<int64_t> order =
      shuffled(task.examples, options.objective.seed, kHeldOutStream);
  const int64_t classes = task.targets.size(1);
  const auto wanted = static_cast<int64_t>(
      std::llround(options.held_out * static_cast<double>(order.size())));
  const int64_t count = std::max<int64_t>(wanted, 1);
  if (std::ssize(order) - count < classes) {
    throw InputError(fmt::format(
        "{}: expected at least {} examples to train on, one for each class, "
        "got {} of which {} are held out",
        options.objective.tasks[t].data.string(),
        classes,
        order.size(),
        count));
  }
  held_out_.emplace_back(order.begin(), order.begin() + count);
  training_.emplace_back(order.begin() + count, order.end());
}

void MapObjective::predict_targets(size_t t) {
  arena().parameters.copy_(joint_.read_expert(t));
  JointObjective::Task& task = joint_.tasks()[t];
  joint_.for_each_batch(
      t,
      task.examples,
      [&](const Batch& batch, const at::Tensor& logits, const at::Tensor&) {
        if (!logits.isfinite().all().item<bool>()) {
          throw InputError(fmt::format(
              "{}: its predictions on {} are not finite",
              joint_.options().tasks[t].expert.string(),
              joint_.options().tasks[t].data.string()));
        }
        task.targets.index_copy_(
            0,
            at::tensor(batch.indices, at::kLong),
            at::softmax(logits.to(at::kDouble), 1));
      });
}

MapObjective::Value MapObjective::value(
    const std::vector<std::vector<int64_t>>& examples) {
  double losses = 0;
  for (size_t t = 0; t < examples.size(); ++t) {
    losses += joint_.loss(t, examples[t]);
  }
  return {losses + (prior_ ? prior_->value(arena()) : 0), losses};
}

double MapObjective::training() {
  return value(training_).objective;
}

MapObjective::Value MapObjective::held_out() {
  return value(held_out_);
}

double MapObjective::gradient() {
  return gradient(training_);
}

double MapObjective::gradient(
    const std::vector<std::vector<int64_t>>& batches) {
  arena().gradients.zero_();
  double total = 0;
  for (size_t t = 0; t < batches.size(); ++t) {
    total += joint_.add_gradient(t, batches[t]);
  }
  return total + (prior_ ? prior_->add_gradient(arena()) : 0);
}

double MapObjective::total_weight() const {
  double total = 0;
  for (const JointObjective::Task& task : joint_.tasks()) {
    total += task.weight * task.num_examples;
  }
  return total;
}

} // namespace merganser
