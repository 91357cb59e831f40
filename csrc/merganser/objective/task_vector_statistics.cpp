#include "merganser/objective/task_vector_statistics.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include <cmath>
#include <string_view>

#include "merganser/base/error.h"
#include "merganser/io/checkpoint.h"
#include "merganser/objective/joint_objective.h"
#include "merganser/objective/subspace.h"

namespace merganser {
namespace {

constexpr size_t kExpert = 0;
constexpr size_t kBase = 1;

// The base is one more task of the objective: its model and data are read and
// checked like an expert's.
ObjectiveOptions objective_options(const TaskVectorOptions& options) {
  return {
      .base = options.base,
      .base_fisher = {},
      .tasks =
          {{.expert = options.expert, .data = options.data, .fisher = {}},
           {.expert = options.base, .data = options.base_data, .fisher = {}}},
      .limit = options.limit,
      .seed = options.seed,
      .batch_size = options.batch_size,
      .max_length = options.max_length,
      .bfloat16 = options.bfloat16};
}

// Mean and standard error of each column of rows (n, C) that are added in
// parts.
class Columns {
 public:
  void add(const at::Tensor& rows) {
    parts_.push_back(rows);
  }
  // Throws Error naming `what` for a value that is not finite.
  std::vector<Estimate> estimates(std::string_view what) const {
    const at::Tensor rows = at::cat(parts_);
    const at::Tensor mean = rows.mean(0);
    const at::Tensor error =
        rows.std(0) / std::sqrt(static_cast<double>(rows.size(0)));
    if (!mean.isfinite().all().item<bool>()) {
      throw Error(
          fmt::format("the {} along the task vector is not finite", what));
    }
    std::vector<Estimate> found;
    for (int64_t c = 0; c < rows.size(1); ++c) {
      found.push_back({mean[c].item<double>(), error[c].item<double>()});
    }
    return found;
  }

 private:
  std::vector<at::Tensor> parts_;
};

// Columns (B, G) of the groups and, after them, their sum.
at::Tensor with_sum(const at::Tensor& groups) {
  return at::cat({groups, groups.sum(1, /*keepdim=*/true)}, 1);
}

// u^T C u for the columns u of U (B, K - 1, G + 1): (B, G + 1).
at::Tensor curvatures(const ExampleProducts& batch) {
  const at::Tensor u =
      at::cat({batch.jacobian, batch.jacobian.sum(2, /*keepdim=*/true)}, 2);
  return (u * at::bmm(batch.covariance, u)).sum(1);
}

} // namespace

TaskVectorStatistics measure_task_vector(
    const TaskVectorOptions& options,
    const ProgressCallback& progress) {
  JointObjective objective(objective_options(options));
  at::Tensor& parameters = objective.arena().parameters;
  const at::Tensor expert = objective.read_expert(kExpert);
  const Subspace subspace{
      {expert - parameters}, make_groups(objective.arena(), Grouping::kBlock)};

  const std::vector<int64_t>& of_base = objective.tasks()[kBase].examples;
  const std::vector<int64_t>& of_expert = objective.tasks()[kExpert].examples;
  for (const auto* examples : {&of_base, &of_expert}) {
    if (examples->size() < 2) {
      throw InputError(
          "expected at least 2 examples of the model and of the base for a "
          "standard error, got 1");
    }
  }
  const int64_t total = std::ssize(of_base) + std::ssize(of_expert);
  const auto measure = [&](size_t task,
                           int64_t before,
                           std::string_view what,
                           const auto& rows_of) {
    Columns columns;
    for_each_products(
        objective,
        subspace,
        task,
        objective.tasks()[task].examples,
        [&](const ExampleProducts& batch, int64_t done) {
          columns.add(rows_of(batch));
          if (progress) {
            progress(before + done, total, "");
          }
        });
    return columns.estimates(what);
  };
  const std::vector<Estimate> curvature =
      measure(kBase, 0, "curvature", curvatures);
  {
    const at::NoGradGuard no_grad;
    parameters.copy_(expert);
  }
  const std::vector<Estimate> slope = measure(
      kExpert,
      std::ssize(of_base),
      "gradient",
      [](const ExampleProducts& batch) { return with_sum(batch.gradient); });

  TaskVectorStatistics found;
  found.base_model_hash = Checkpoint(options.base).content_hash();
  found.num_examples_used = std::ssize(of_expert);
  found.base_num_examples_used = std::ssize(of_base);
  found.total = {slope.back(), curvature.back()};
  for (size_t g = 0; g < subspace.groups.names.size(); ++g) {
    found.groups.emplace_back(
        subspace.groups.names[g], AlongTaskVector{slope[g], curvature[g]});
  }
  return found;
}

} // namespace merganser
