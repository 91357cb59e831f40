#include "merge/preflight.h"

#include <fmt/format.h>

#include "io/error.h"
#include "merge/fisher_file.h"
#include "merge/table.h"

namespace merganser {

namespace fs = std::filesystem;

void check_fishers(
    const MergePlan& plan,
    const std::function<std::string(size_t input)>& hash_of) {
  const auto check = [&](std::optional<size_t> statistic_input,
                         size_t model_input) {
    if (!statistic_input) {
      return;
    }
    const Checkpoint& statistic = *plan.inputs[*statistic_input];
    const auto metadata =
        FisherMetadata::parse(statistic.metadata(), statistic.files().front());
    if (metadata && !metadata->base_model_hash.empty() &&
        !metadata->base_model_hash.starts_with(hash_of(model_input))) {
      throw InputError(fmt::format(
          "{} is {} of other weights than {} (its base_model_hash differs); "
          "estimate it on this model",
          statistic.path().string(),
          metadata->estimator == kGramEstimator ? "a Gram file" : "the Fisher",
          plan.inputs[model_input]->path().string()));
    }
  };
  if (plan.base) {
    check(plan.base_fisher, *plan.base);
    check(plan.base_gram, *plan.base);
  }
  for (const PlanSlice& slice : plan.slices) {
    for (const PlanModel& model : slice.models) {
      if (!model.adapter) {
        check(model.fisher, model.weights);
        check(model.gram, model.weights);
      }
    }
  }
}

void check_space(const fs::path& out, uint64_t needed) {
  fs::path folder = fs::absolute(out);
  while (!fs::exists(folder)) {
    folder = folder.parent_path();
  }
  const uint64_t free = fs::space(folder).available;
  if (free < needed) {
    throw Error(fmt::format(
        "{} needs {}, but its disk has {} free",
        out.string(),
        format_bytes(needed),
        format_bytes(free)));
  }
}

} // namespace merganser
