#include "merganser/objective/mismatch.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include <cmath>

#include "merganser/base/error.h"
#include "merganser/objective/mismatch_norms.h"

namespace merganser {
namespace {

// Adds the examples of the passes before.
ProgressCallback after(
    int64_t before,
    int64_t total,
    const ProgressCallback& progress) {
  if (!progress) {
    return {};
  }
  return [=](int64_t done, int64_t, const std::string& text) {
    progress(before + done, total, text);
  };
}

} // namespace

MismatchMeter::MismatchMeter(
    const ObjectiveOptions& options,
    Grouping groups,
    const std::vector<std::filesystem::path>& models,
    const ProgressCallback& progress)
    : objective_(options),
      with_groups_(groups != Grouping::kGlobal),
      groups_(make_groups(objective_.arena(), groups)) {
  for (const std::filesystem::path& model : models) {
    objective_.read_model(model);
  }
  if (objective_.base_precision().defined()) {
    clear_rounding(objective_.base_precision(), parameters());
    if (!objective_.base_precision().any().item<bool>()) {
      throw InputError(fmt::format(
          "{}: the Fisher of the base is 0 everywhere",
          options.base_fisher->string()));
    }
  }
  int64_t done = 0;
  for (size_t t = 0; t < objective_.tasks().size(); ++t) {
    objective_.arena().parameters.copy_(objective_.read_expert(t));
    compute_gradient(
        t, options.tasks[t].expert, after(done, examples(), progress));
    expert_gradients_.push_back(objective_.arena().gradients.clone());
    done += std::ssize(objective_.tasks()[t].examples);
  }
}

int64_t MismatchMeter::parameters() const {
  int64_t total = 0;
  for (const Arena::Entry& entry : objective_.arena().entries()) {
    total += entry.numel;
  }
  return total;
}

int64_t MismatchMeter::examples() const {
  int64_t total = 0;
  for (const JointObjective::Task& task : objective_.tasks()) {
    total += std::ssize(task.examples);
  }
  return total;
}

void MismatchMeter::compute_gradient(
    size_t t,
    const std::filesystem::path& model,
    const ProgressCallback& progress) {
  const at::Tensor& gradients = objective_.arena().gradients;
  gradients.zero_();
  const double loss =
      objective_.add_gradient(t, objective_.tasks()[t].examples, progress);
  if (!std::isfinite(loss) || !gradients.isfinite().all().item<bool>()) {
    throw InputError(fmt::format(
        "{}: the gradient of the loss on {} is not finite: the model's "
        "outputs, or the weight {:g} of {} examples, are beyond the range of "
        "{}",
        model.string(),
        objective_.options().tasks[t].data.string(),
        objective_.tasks()[t].weight,
        objective_.tasks()[t].num_examples,
        objective_.options().bfloat16 ? "bfloat16" : "float32"));
  }
}

ModelMismatch MismatchMeter::measure(
    const std::filesystem::path& model,
    Role role,
    const ProgressCallback& progress) {
  const at::NoGradGuard no_grad;
  if (role == Role::kTarget && !objective_.base_precision().defined()) {
    throw InputError("a target needs the Fisher of the base");
  }
  Arena& arena = objective_.arena();
  arena.parameters.copy_(objective_.read_model(model));
  ModelMismatch result{.model = model};
  at::Tensor total = arena.zeros();
  at::Tensor total_explained = arena.zeros();
  int64_t done = 0;
  for (size_t t = 0; t < expert_gradients_.size(); ++t) {
    const JointObjective::Task& task = objective_.tasks()[t];
    compute_gradient(t, model, after(done, examples(), progress));
    done += std::ssize(task.examples);
    const at::Tensor mismatch = arena.gradients.sub_(expert_gradients_[t]);
    at::Tensor explained = objective_.read_precision(t);
    if (explained.defined()) {
      const at::Tensor step = objective_.read_expert(t);
      explained.mul_(step.sub_(arena.parameters)).mul_(-task.weight);
    }
    result.tasks.push_back(norms(mismatch, explained));
    total.add_(mismatch);
    if (explained.defined() && total_explained.defined()) {
      total_explained.add_(explained);
    } else {
      total_explained = at::Tensor();
    }
  }
  result.total = norms(total, total_explained);
  if (role == Role::kTarget) {
    result.identity = identity(total);
  }
  return result;
}

MismatchRow MismatchMeter::norms(
    const at::Tensor& mismatch,
    const at::Tensor& explained) {
  std::vector<SquareTotals> groups(groups_.names.size());
  const auto& entries = objective_.arena().entries();
  for (size_t i = 0; i < entries.size(); ++i) {
    groups[groups_.of_entry[i]].add(
        mismatch,
        explained,
        objective_.base_precision(),
        entries[i].offset,
        entries[i].numel);
  }
  MismatchRow row;
  SquareTotals all;
  for (size_t g = 0; g < groups.size(); ++g) {
    all.add(groups[g]);
    if (with_groups_) {
      row.groups.emplace_back(groups_.names[g], groups[g].norms());
    }
  }
  row.all = all.norms();
  return row;
}

TargetIdentity MismatchMeter::identity(const at::Tensor& mismatch) {
  const at::Tensor& target = objective_.arena().parameters;
  // theta_TA = theta_0 + sum_t a_t (theta_t - theta_0)
  const auto& options = objective_.options();
  at::Tensor arithmetic = objective_.read_model(options.base);
  double weights = 0;
  for (const ObjectiveTask& task : options.tasks) {
    weights += task.weight;
  }
  arithmetic.mul_(1 - weights);
  for (size_t t = 0; t < options.tasks.size(); ++t) {
    arithmetic.add_(objective_.read_expert(t), options.tasks[t].weight);
  }
  return compare_identity(
      target, arithmetic, mismatch, objective_.base_precision());
}

MismatchResult MismatchMeter::header() const {
  MismatchResult result;
  result.options = objective_.options();
  for (const JointObjective::Task& task : objective_.tasks()) {
    result.num_examples.push_back(static_cast<int64_t>(task.num_examples));
    result.num_examples_used.push_back(std::ssize(task.examples));
  }
  result.parameters = parameters();
  const at::Tensor& precision = objective_.base_precision();
  if (precision.defined()) {
    // The arena's gaps are zero.
    result.without_h0 =
        result.parameters - precision.gt(0).sum().item<int64_t>();
  }
  return result;
}

} // namespace merganser
