#include "merganser/objective/subspace_of_fishers.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>

#include "merganser/base/error.h"
#include "merganser/io/checkpoint.h"
#include "merganser/model/classifier.h"
#include "merganser/objective/model_parameters.h"
#include "merganser/objective/subspace.h"
#include "merganser/train/flat_fisher.h"

namespace merganser {
namespace {

namespace fs = std::filesystem;

class FisherProjector {
 public:
  FisherProjector(
      const SubspaceOfFishersOptions& options,
      const ProgressCallback& progress)
      : options_(options),
        progress_(progress),
        base_(options.base.model),
        arena_(base_.encoder->named_parameters()) {
    for (const auto& expert : options.experts) {
      add_column(expert.model);
    }
    for (const fs::path& direction : options.directions) {
      add_column(direction);
    }
    subspace_.groups = make_groups(arena_, options.groups);
  }

  SubspaceOfFishers run() {
    SubspaceOfFishers found;
    found.fisher.groups = tensors_by_group(arena_, subspace_.groups);
    found.fisher.base = project(options_.base, found.base_scale);
    for (const auto& expert : options_.experts) {
      SubspaceFisher::Loss loss = project(expert, found.scales.emplace_back());
      loss.gradient.assign(subspace_.columns(), 0);
      found.fisher.experts.push_back(std::move(loss));
    }
    for (const fs::path& direction : options_.directions) {
      found.fisher.experts.push_back(
          {.model_hash = Checkpoint(direction).content_hash()});
    }
    return found;
  }

 private:
  void add_column(const fs::path& model) {
    subspace_.task_vectors.push_back(
        flat_parameters(Classifier(model), model, arena_, options_.base.model)
            .sub_(arena_.parameters));
  }

  SubspaceFisher::Loss project(
      const SubspaceOfFishersOptions::Model& from,
      std::optional<Estimate>& scale) {
    const FlatFisher fisher = read_fisher_of(from.model, arena_, from.fisher);
    const auto num_examples = static_cast<int64_t>(fisher.num_examples);
    // Online estimators may average more examples than the data set has.
    const int64_t used = std::min(fisher.num_examples_used, num_examples);
    if (fisher.scale) {
      scale = fisher.scale->scale;
    }
    // The quadratic 1/2 |theta - theta_0|^2_F at its minimum.
    const at::Tensor mean =
        quadratic_statistics(arena_, subspace_, arena_.parameters, fisher.mean)
            .fisher;
    const at::Tensor sum =
        mean * (static_cast<double>(used) * (scale ? scale->value : 1));
    const double* values = sum.const_data_ptr<double>();
    if (progress_) {
      progress_(++done_, 1 + std::ssize(options_.experts), "");
    }
    return {
        .model_hash = Checkpoint(from.model).content_hash(),
        .num_examples = num_examples,
        .counts = {used},
        .fisher = {values, values + sum.numel()},
        .gradient = {}};
  }

  const SubspaceOfFishersOptions& options_;
  const ProgressCallback& progress_;
  Classifier base_;
  Arena arena_;
  Subspace subspace_;
  int64_t done_ = 0;
};

} // namespace

SubspaceOfFishers subspace_of_fishers(
    const SubspaceOfFishersOptions& options,
    const ProgressCallback& progress) {
  if (options.experts.empty()) {
    throw InputError("expected at least one expert with its Fisher");
  }
  const at::NoGradGuard no_grad;
  return FisherProjector(options, progress).run();
}

} // namespace merganser
