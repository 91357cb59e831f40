#include "merganser/plan/check_inputs.h"

#include <fmt/format.h>

#include <algorithm>

#include "merganser/base/quote.h"
#include "merganser/io/fisher_file.h"
#include "merganser/plan/check_configs.h"
#include "merganser/plan/check_tensors.h"

namespace merganser {
namespace {

// Shape of the update or replacement of a tensor.
std::vector<int64_t> changed_shape(
    const LoraAdapter& adapter,
    const std::string& name) {
  const LoraUpdate* update = adapter.find(name);
  if (update == nullptr) {
    return adapter.replacement(name)->info().shape;
  }
  const int64_t rows = update->b.info().shape[0];
  const int64_t columns = update->a.info().shape[1];
  return update->transposed ? std::vector{columns, rows}
                            : std::vector{rows, columns};
}

// Checks that the model has the tensors that the adapter changes, in the same
// shapes.
void check_adapter(
    const PlanModel& model,
    const Checkpoint& weights,
    Problems& problems) {
  for (const std::string& name : model.adapter->tensors()) {
    const TensorInfo* info = weights.find(name);
    if (info == nullptr) {
      problems.add(fmt::format(
          "adapter {} targets tensor {}, which {} does not have",
          model.recipe.adapter->string(),
          quote(name),
          weights.path().string()));
      continue;
    }
    TensorInfo changed = *info;
    changed.shape = changed_shape(*model.adapter, name);
    if (changed.shape != info->shape) {
      problems.add(fmt::format(
          "adapter {} has shape {} for tensor {} of {}; expected {}",
          model.recipe.adapter->string(),
          changed.shape_text(),
          quote(name),
          weights.path().string(),
          info->shape_text()));
    }
  }
}

} // namespace

void check_inputs(const MergePlan& plan, Problems& problems) {
  const bool skip_heads = plan.recipe.heads != HeadMode::kMerge;
  const bool sliced = !plan.recipe.slices.empty();
  const Checkpoint& reference = *plan.inputs[plan.reference_weights];
  check_types(reference, skip_heads, problems);
  std::vector<const Checkpoint*> compared = {&reference};
  for (const PlanSlice& slice : plan.slices) {
    for (const PlanModel& model : slice.models) {
      const Checkpoint& weights = *plan.inputs[model.weights];
      if (model.adapter) {
        check_adapter(model, weights, problems);
      }
      if (model.fisher) {
        check_fisher(
            *plan.inputs[*model.fisher], weights, skip_heads, problems);
      }
      if (model.gram) {
        check_gram(*plan.inputs[*model.gram], weights, problems);
      }
      if (std::ranges::find(compared, &weights) != compared.end()) {
        continue;
      }
      compared.push_back(&weights);
      problems.collect([&] {
        check_configs(
            ModelDir(weights.path()),
            *plan.reference,
            skip_heads,
            /*any_depth=*/sliced,
            problems);
      });
      if (!sliced) {
        check_tensors(weights, reference, skip_heads, problems);
      }
    }
  }
  if (!plan.base) {
    check_integers(compared, skip_heads, problems);
  }
  if (plan.base_fisher) {
    check_fisher(
        *plan.inputs[*plan.base_fisher], reference, skip_heads, problems);
  }
  if (plan.base_gram) {
    check_gram(*plan.inputs[*plan.base_gram], reference, problems);
  }
}

void check_hashes(
    const MergePlan& plan,
    const std::function<std::string(size_t input)>& hash_of,
    Problems& problems) {
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
      problems.add(fmt::format(
          "{} was estimated on other weights than {} (its base_model_hash "
          "differs); estimate {} on this model",
          statistic.path().string(),
          plan.inputs[model_input]->path().string(),
          metadata->estimator == kGramEstimator ? "Gram matrices"
                                                : "the Fisher"));
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

} // namespace merganser
