#include "merganser/plan/check_inputs.h"

#include <fmt/format.h>

#include <algorithm>

#include "merganser/base/quote.h"
#include "merganser/io/fisher_file.h"
#include "merganser/plan/check_configs.h"
#include "merganser/plan/check_tensors.h"

namespace merganser {
namespace {

// An adapter speaks of tensors that its model has, in shapes that fit.
void check_adapter(
    const PlanModel& model,
    const Checkpoint& weights,
    Problems& problems) {
  const auto complain = [&](const std::string& tensor, const char* what) {
    problems.add(fmt::format(
        "the adapter {} {} tensor {} of {}",
        model.recipe.adapter->string(),
        what,
        quote(tensor),
        weights.path().string()));
  };
  for (const std::string& name : model.adapter->tensors()) {
    const TensorInfo* info = weights.find(name);
    if (info == nullptr) {
      complain(name, "speaks of a");
      continue;
    }
    if (const LoraUpdate* update = model.adapter->find(name)) {
      std::vector<int64_t> shape = {
          update->b.info().shape[0], update->a.info().shape[1]};
      if (update->transposed) {
        std::swap(shape[0], shape[1]);
      }
      if (info->shape != shape) {
        complain(name, "has another shape than");
      }
    } else if (model.adapter->replacement(name)->info().shape != info->shape) {
      complain(name, "has another shape than");
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
        compare_fisher(
            *plan.inputs[*model.fisher], weights, skip_heads, problems);
      }
      if (model.gram) {
        compare_gram(*plan.inputs[*model.gram], weights, problems);
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
        compare_tensors(weights, reference, skip_heads, problems);
      }
    }
  }
  if (!plan.base) {
    compare_integers(compared, skip_heads, problems);
  }
  if (plan.base_fisher) {
    compare_fisher(
        *plan.inputs[*plan.base_fisher], reference, skip_heads, problems);
  }
  if (plan.base_gram) {
    compare_gram(*plan.inputs[*plan.base_gram], reference, problems);
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

} // namespace merganser
