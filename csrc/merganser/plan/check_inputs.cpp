#include "merganser/plan/check_inputs.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "merganser/base/quote.h"
#include "merganser/io/conv1d.h"
#include "merganser/io/fisher_file.h"
#include "merganser/io/header_only.h"
#include "merganser/plan/check_adapters.h"
#include "merganser/plan/check_configs.h"
#include "merganser/plan/check_tensors.h"

namespace merganser {
namespace {

// True if one of the Fishers has the tensor. Where none does, as for buffers
// and layers that every training froze, the merge needs none.
bool has_a_fisher(const MergePlan& plan, const std::string& name) {
  return std::ranges::any_of(fishers_of(plan), [&](size_t fisher) {
    return plan.named(fisher).find(name) != nullptr;
  });
}

bool has_a_gram(const MergePlan& plan, const std::string& name) {
  if (plan.recipe.grams_of_task_vectors()) {
    const TensorInfo* tensor = plan.inputs[plan.reference_weights]->find(name);
    return tensor != nullptr && is_linear_weight(*tensor);
  }
  return std::ranges::any_of(plan.slices, [&](const PlanSlice& slice) {
    return std::ranges::any_of(slice.models, [&](const PlanModel& model) {
      return model.gram && plan.named(*model.gram).find(name) != nullptr;
    });
  });
}

// True for tensors that are merged with Fishers, where each file needs one.
bool needs_fisher(const MergePlan& plan, const std::string& name) {
  if (plan.is_head(name) || has_a_gram(plan, name) ||
      !has_a_fisher(plan, name)) {
    return false;
  }
  if (plan.recipe.method->shrinks_base || !plan.recipe.slices.empty()) {
    return true;
  }
  const PlanSlice& models = plan.slices.front();
  const Checkpoint& reference = *plan.inputs[plan.reference_weights];
  return reference.find(name) == nullptr ||
      !is_unchanged(
             plan,
             models,
             reference.at(name),
             std::vector(models.models.size(), name));
}

// A Fisher or Gram file of the plan and a model that it was estimated on, both
// positions in MergePlan::inputs.
struct Statistic {
  size_t input;
  size_t model;
  bool adapter; // the model has one, so that its weights are not the model's
  std::string_view remedy; // where the hashes differ
  std::string hash; // of the weights that it was estimated on; empty: unknown
};

// The reason why the hashes cannot be compared; empty: they can.
std::string_view unchecked_reason(
    const MergePlan& plan,
    const Statistic& statistic) {
  if (statistic.adapter) {
    return "the model has an adapter";
  }
  if (statistic.hash.empty()) {
    return "its metadata name no base_model_hash";
  }
  return find_header_only(plan.inputs[statistic.model]->path())
      ? "the model is not downloaded"
      : "";
}

template <typename Use>
void for_each_statistic(const MergePlan& plan, const Use& use) {
  const auto visit = [&](std::optional<size_t> input,
                         size_t model,
                         bool adapter,
                         std::string_view remedy) {
    if (input) {
      const Checkpoint& file = *plan.inputs[*input];
      const auto metadata =
          FisherMetadata::parse(file.metadata(), file.files().front());
      use(Statistic{
          *input,
          model,
          adapter,
          remedy,
          metadata ? metadata->base_model_hash : ""});
      if (metadata && metadata->task_vector && plan.base &&
          plan.recipe.method->find_parameter("rho") != nullptr) {
        use(Statistic{
            *input,
            *plan.base,
            /*adapter=*/false,
            "estimate the Fisher with this model as --base",
            metadata->task_vector->base_model_hash});
      }
    }
  };
  constexpr std::string_view kFisher = "estimate the Fisher on this model";
  constexpr std::string_view kGram = "estimate Gram matrices on this model";
  if (plan.base) {
    visit(plan.base_fisher, *plan.base, /*adapter=*/false, kFisher);
    visit(plan.base_gram, *plan.base, /*adapter=*/false, kGram);
  }
  for (const PlanSlice& slice : plan.slices) {
    for (const PlanModel& model : slice.models) {
      const bool adapter = model.adapter != nullptr;
      visit(model.fisher, model.weights, adapter, kFisher);
      visit(model.gram, model.weights, adapter, kGram);
    }
  }
  constexpr std::string_view kSubspace = "estimate the subspace Fisher again";
  for (size_t i = 0; i < plan.subspace_hashes.size(); ++i) {
    use(Statistic{
        *plan.subspace,
        i == 0 ? *plan.base : plan.slices.front().models[i - 1].weights,
        /*adapter=*/false,
        kSubspace,
        plan.subspace_hashes[i]});
  }
}

} // namespace

void check_inputs(const MergePlan& plan, Problems& problems) {
  const bool skip_heads = plan.recipe.heads != HeadMode::kMerge;
  const auto is_head = [&](const std::string& name) {
    return plan.is_head(name);
  };
  const auto check_fishers = [&](size_t fisher, size_t model) {
    check_fisher(
        plan.named(fisher),
        plan.named(model),
        [&](const std::string& name) { return needs_fisher(plan, name); },
        problems);
  };
  if (plan.recipe.grams_of_task_vectors() &&
      has_conv1d(plan.reference->config_text())) {
    problems.add(fmt::format(
        "{}: gram: {} expects weights of shape (out, in), but the architecture "
        "has Conv1D, which stores them as (in, out)",
        plan.reference->path().string(),
        kTaskVectors));
  }
  const bool sliced = !plan.recipe.slices.empty();
  const Checkpoint& reference = *plan.inputs[plan.reference_weights];
  check_types(reference, is_head, problems);
  std::set<size_t> compared = {plan.reference_weights};
  std::vector<NamedCheckpoint> models = {plan.named(plan.reference_weights)};
  for (const PlanSlice& slice : plan.slices) {
    for (const PlanModel& model : slice.models) {
      const NamedCheckpoint weights = plan.named(model.weights);
      if (model.adapter) {
        check_adapter(plan, slice, model, problems);
      }
      if (model.fisher) {
        check_fishers(*model.fisher, model.weights);
      }
      if (model.gram) {
        check_gram(plan.named(*model.gram), weights, problems);
      }
      if (!compared.insert(model.weights).second) {
        continue;
      }
      models.push_back(weights);
      problems.collect([&] {
        check_configs(
            ModelDir(weights.file.path()),
            *plan.reference,
            skip_heads,
            /*any_depth=*/sliced,
            problems);
      });
      if (!sliced) {
        check_tensors(weights, reference, is_head, problems);
      }
    }
  }
  if (!plan.base) {
    check_integers(models, is_head, problems);
  }
  if (plan.base_fisher) {
    check_fishers(*plan.base_fisher, plan.reference_weights);
  }
  if (plan.base_gram) {
    check_gram(
        plan.named(*plan.base_gram),
        plan.named(plan.reference_weights),
        problems);
  }
}

void check_hashes(
    const MergePlan& plan,
    const std::function<std::string(size_t input)>& hash_of,
    Problems& problems) {
  for_each_statistic(plan, [&](const Statistic& statistic) {
    if (!unchecked_reason(plan, statistic).empty() ||
        statistic.hash.starts_with(hash_of(statistic.model))) {
      return;
    }
    problems.add(fmt::format(
        "{} was estimated on other weights than {} (the hash in its "
        "metadata differs); {}",
        plan.inputs[statistic.input]->path().string(),
        plan.inputs[statistic.model]->path().string(),
        statistic.remedy));
  });
}

std::vector<std::string> unchecked_hashes(const MergePlan& plan) {
  std::vector<std::string> notes;
  for_each_statistic(plan, [&](const Statistic& statistic) {
    const std::string_view reason = unchecked_reason(plan, statistic);
    if (reason.empty()) {
      return;
    }
    std::string note = fmt::format(
        "{} is not checked against the weights of {}: {}",
        plan.inputs[statistic.input]->path().string(),
        plan.inputs[statistic.model]->path().string(),
        reason);
    if (std::ranges::find(notes, note) == notes.end()) {
      notes.push_back(std::move(note)); // once for all slices
    }
  });
  return notes;
}

} // namespace merganser
