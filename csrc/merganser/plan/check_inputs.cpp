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

// A Fisher or Gram file of the plan and its model, both positions in
// MergePlan::inputs.
struct Statistic {
  size_t input;
  size_t model;
  bool adapter; // the model has one, so that its weights are not the model's
  bool is_gram;
  std::string hash; // of the weights that it was estimated on; empty: unknown
};

template <typename Use>
void for_each_statistic(const MergePlan& plan, const Use& use) {
  const auto visit =
      [&](std::optional<size_t> input, size_t model, bool adapter, bool gram) {
        if (input) {
          const Checkpoint& file = *plan.inputs[*input];
          const auto metadata =
              FisherMetadata::parse(file.metadata(), file.files().front());
          use(Statistic{
              *input,
              model,
              adapter,
              gram,
              metadata ? metadata->base_model_hash : ""});
        }
      };
  if (plan.base) {
    visit(plan.base_fisher, *plan.base, /*adapter=*/false, /*gram=*/false);
    visit(plan.base_gram, *plan.base, /*adapter=*/false, /*gram=*/true);
  }
  for (const PlanSlice& slice : plan.slices) {
    for (const PlanModel& model : slice.models) {
      const bool adapter = model.adapter != nullptr;
      visit(model.fisher, model.weights, adapter, /*gram=*/false);
      visit(model.gram, model.weights, adapter, /*gram=*/true);
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
  for_each_statistic(plan, [&](const Statistic& statistic) {
    if (statistic.hash.empty() || statistic.adapter ||
        statistic.hash.starts_with(hash_of(statistic.model))) {
      return;
    }
    problems.add(fmt::format(
        "{} was estimated on other weights than {} (its base_model_hash "
        "differs); estimate {} on this model",
        plan.inputs[statistic.input]->path().string(),
        plan.inputs[statistic.model]->path().string(),
        statistic.is_gram ? "Gram matrices" : "the Fisher"));
  });
}

std::vector<std::string> unchecked_hashes(const MergePlan& plan) {
  std::vector<std::string> notes;
  for_each_statistic(plan, [&](const Statistic& statistic) {
    if (!statistic.hash.empty() && !statistic.adapter) {
      return;
    }
    std::string note = fmt::format(
        "{} is not checked against the weights of {}: {}",
        plan.inputs[statistic.input]->path().string(),
        plan.inputs[statistic.model]->path().string(),
        statistic.adapter ? "the model has an adapter"
                          : "its metadata name no base_model_hash");
    if (std::ranges::find(notes, note) == notes.end()) {
      notes.push_back(std::move(note)); // once for all slices
    }
  });
  return notes;
}

} // namespace merganser
