#include "merganser/objective/joint_objective.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include "merganser/base/error.h"
#include "merganser/model/batch_logits.h"
#include "merganser/objective/model_parameters.h"
#include "merganser/text/batching.h"
#include "merganser/train/flat_fisher.h"

namespace merganser {
namespace {

namespace fs = std::filesystem;

ObjectiveOptions checked(const ObjectiveOptions& options) {
  check_options(options);
  return options;
}

at::Tensor precision(const FlatFisher& fisher) {
  return fisher.mean.mul_(fisher.num_examples);
}

at::Tensor one_hot(const Dataset& data, int64_t classes) {
  const at::Tensor labels = at::tensor(data.labels, at::kLong);
  return at::one_hot(labels, classes).to(at::kDouble);
}

double sum_loss(const at::Tensor& logits, const at::Tensor& targets) {
  return example_losses(logits, targets).sum().item<double>();
}

} // namespace

at::Tensor example_losses(const at::Tensor& logits, const at::Tensor& targets) {
  const at::Tensor log_p = at::log_softmax(logits.detach().to(at::kDouble), 1);
  return -(targets * log_p).sum(1);
}

JointObjective::JointObjective(const ObjectiveOptions& options)
    : options_(checked(options)),
      base_(options.base),
      arena_(base_.encoder->named_parameters()) {
  base_.encoder->eval();
  // Also checks that the base's values are finite.
  flat_parameters(base_, options_.base, arena_, options_.base);
  if (options_.base_fisher) {
    base_precision_ =
        precision(read_fisher_of(options_.base, arena_, *options_.base_fisher));
  }
  for (const ObjectiveTask& task : options_.tasks) {
    tasks_.push_back(load_task(task));
  }
}

JointObjective::Task JointObjective::load_task(
    const ObjectiveTask& task) const {
  const Classifier expert(task.expert);
  // Not every solver reads the experts' values; a wrong expert is refused.
  flat_parameters(expert, task.expert, arena_, options_.base);
  Task loaded;
  loaded.data = expert.load(
      task.data,
      options_.max_length,
      options_.labels ? Labels::kRequired : Labels::kIgnored);
  loaded.pad_id = expert.tokenizer->pad_id();
  loaded.examples =
      draw_subset(loaded.data.size(), options_.limit, options_.seed);
  loaded.weight = task.weight;
  // Reading the Fisher here refuses a wrong one before any work is done.
  loaded.num_examples = task.fisher
      ? read_fisher_of(task.expert, arena_, *task.fisher).num_examples
      : static_cast<double>(loaded.data.size());
  const int64_t classes = expert.encoder->config().num_labels;
  if (std::ssize(loaded.examples) < classes) {
    throw InputError(fmt::format(
        "{}: expected at least {} examples, one for each class, got {}",
        task.data.string(),
        classes,
        loaded.examples.size()));
  }
  loaded.targets = one_hot(loaded.data, classes);
  return loaded;
}

at::Tensor JointObjective::read_model(const fs::path& folder) const {
  return flat_parameters(Classifier(folder), folder, arena_, options_.base);
}

at::Tensor JointObjective::read_expert(size_t t) const {
  return read_model(options_.tasks[t].expert);
}

at::Tensor JointObjective::read_precision(size_t t) const {
  const ObjectiveTask& task = options_.tasks[t];
  if (!task.fisher) {
    return {};
  }
  return precision(read_flat_fisher(arena_, *task.fisher));
}

void JointObjective::for_each_batch(
    size_t t,
    const std::vector<int64_t>& examples,
    const UseBatch& use) {
  const Task& task = tasks_[t];
  merganser::for_each_batch(
      base_.encoder,
      task.data,
      sorted_batches(task.data, options_.batch_size, examples),
      task.pad_id,
      options_.bfloat16,
      [&](const Batch& batch, const at::Tensor& logits) {
        use(batch,
            logits,
            task.targets.index_select(0, at::tensor(batch.indices, at::kLong)));
      });
}

double JointObjective::add_gradient(
    size_t t,
    const std::vector<int64_t>& examples,
    const ProgressCallback& progress) {
  const at::AutoGradMode with_gradients(true);
  const double scale = tasks_[t].scale(examples.size());
  double sum = 0;
  int64_t done = 0;
  for_each_batch(
      t,
      examples,
      [&](const Batch&, const at::Tensor& logits, const at::Tensor& targets) {
        sum += sum_loss(logits, targets);
        // The gradient of the loss by the logits, in float64: where one class
        // has nearly all probability, p - q must not lose its digits.
        const at::Tensor p = at::softmax(logits.detach().to(at::kDouble), 1);
        logits.backward(((p - targets) * scale).to(logits.scalar_type()));
        done += logits.size(0);
        if (progress) {
          progress(done, std::ssize(examples), "");
        }
      });
  return scale * sum;
}

double JointObjective::loss(size_t t, const std::vector<int64_t>& examples) {
  const at::NoGradGuard no_grad;
  double sum = 0;
  for_each_batch(
      t,
      examples,
      [&](const Batch&, const at::Tensor& logits, const at::Tensor& targets) {
        sum += sum_loss(logits, targets);
      });
  return tasks_[t].scale(examples.size()) * sum;
}

} // namespace merganser
