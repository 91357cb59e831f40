#include "merge/plan_inputs.h"

#include "merge/compatibility.h"
#include "merge/fisher_file.h"
#include "merge/tensor_checks.h"

namespace merganser {
namespace {

// The recipe's number of examples, or else the file's.
double read_scale(
    const Checkpoint& fisher,
    const std::optional<double>& given,
    const char* key) {
  const auto metadata =
      FisherMetadata::parse(fisher.metadata(), fisher.files().front());
  if (given) {
    return *given;
  }
  if (!metadata) {
    throw InputError(fmt::format(
        "{} does not say how many examples it stands for, give {} in the "
        "recipe",
        fisher.path().string(),
        key));
  }
  return static_cast<double>(metadata->num_examples);
}

} // namespace

void open_files(MergePlan& plan, Problems& problems) {
  const Recipe& recipe = plan.recipe;
  const MethodInfo& method = method_info(recipe.method);
  if (recipe.base_model) {
    problems.collect([&] {
      plan.reference.emplace(*recipe.base_model);
      plan.base.emplace(*recipe.base_model);
    });
  }
  if (method.needs_base_fisher) {
    problems.collect([&] { plan.base_fisher.emplace(*recipe.base_fisher); });
  }
  for (const RecipeModel& model : recipe.models) {
    problems.collect([&] {
      ModelDir folder(model.model);
      if (!recipe.base_model && !plan.reference) {
        plan.reference.emplace(std::move(folder));
      }
      plan.models.emplace_back(model.model);
    });
    if (method.needs_fishers) {
      problems.collect([&] { plan.fishers.emplace_back(*model.fisher); });
    }
  }
}

void compare_inputs(const MergePlan& plan, Problems& problems) {
  const bool skip_heads = plan.recipe.heads != HeadMode::kMerge;
  const Checkpoint& reference = plan.reference_weights();
  check_types(reference, skip_heads, problems);
  for (const Checkpoint& model : plan.models) {
    if (model.path() == reference.path()) {
      continue;
    }
    problems.collect([&] {
      compare_directories(
          ModelDir(model.path()), *plan.reference, skip_heads, problems);
    });
    compare_tensors(model, reference, skip_heads, problems);
  }
  if (!plan.base) {
    compare_integers(plan.models, skip_heads, problems);
  }
  if (plan.base_fisher) {
    compare_fisher(*plan.base_fisher, *plan.base, skip_heads, problems);
  }
  for (size_t t = 0; t < plan.fishers.size(); ++t) {
    compare_fisher(plan.fishers[t], plan.models[t], skip_heads, problems);
  }
}

void read_scales(MergePlan& plan, Problems& problems) {
  const Recipe& recipe = plan.recipe;
  plan.scales.resize(plan.fishers.size(), 1);
  if (!method_info(recipe.method).needs_num_examples) {
    return;
  }
  for (size_t t = 0; t < plan.fishers.size(); ++t) {
    problems.collect([&] {
      plan.scales[t] = read_scale(
          plan.fishers[t], recipe.models[t].num_examples, "num_examples");
    });
  }
  if (plan.base_fisher) {
    problems.collect([&] {
      plan.base_scale = read_scale(
          *plan.base_fisher, recipe.base_num_examples, "base_num_examples");
    });
  }
}

} // namespace merganser
