#include "merganser/plan/plan_grams.h"

#include <fmt/format.h>

#include "merganser/base/error.h"
#include "merganser/base/quote.h"

namespace merganser {
namespace {

bool has(
    const MergePlan& plan,
    std::optional<size_t> file,
    const std::string& name) {
  return file && plan.named(*file).find(name) != nullptr;
}

TensorSource source_of(
    const MergePlan& plan,
    size_t input,
    const std::string& name) {
  return {plan.named(input).at(name), input};
}

// The base's own Gram matrix, which not every linear layer needs to have, and
// the base's weight in place of the models'.
std::vector<GramSource> of_task_vectors(
    const MergePlan& plan,
    const PlanSlice& slice,
    const TensorNames& names) {
  std::vector<GramSource> grams;
  if (has(plan, plan.base_gram, names.base)) {
    grams.push_back(
        {source_of(plan, *plan.base_gram, names.base),
         plan.base_gram_num_examples});
  }
  for (const PlanModel& model : slice.models) {
    grams.push_back(
        {.matrix = source_of(plan, *plan.base, names.base),
         .num_examples = model.gram_num_examples,
         .of_task_vector = true});
  }
  return grams;
}

} // namespace

bool has_a_gram(
    const MergePlan& plan,
    const PlanSlice& slice,
    const TensorNames& names,
    const TensorInfo& like) {
  if (plan.recipe.grams_of_task_vectors()) {
    return is_linear_weight(like);
  }
  for (size_t t = 0; t < slice.models.size(); ++t) {
    if (has(plan, slice.models[t].gram, names.models[t])) {
      return true;
    }
  }
  return false;
}

std::vector<GramSource> plan_grams(
    const MergePlan& plan,
    const PlanSlice& slice,
    const TensorNames& names,
    const TensorInfo& like) {
  if (plan.recipe.grams_of_task_vectors()) {
    return is_linear_weight(like) ? of_task_vectors(plan, slice, names)
                                  : std::vector<GramSource>();
  }
  std::vector<GramSource> grams;
  size_t wanted = 0;
  const Checkpoint* without = nullptr;
  const auto add = [&](std::optional<size_t> file,
                       const std::string& name,
                       double num_examples) {
    if (!file) {
      return;
    }
    ++wanted;
    if (has(plan, file, name)) {
      grams.push_back({source_of(plan, *file, name), num_examples});
    } else {
      without = plan.inputs[*file].get();
    }
  };
  add(plan.base_gram, names.base, plan.base_gram_num_examples);
  for (size_t t = 0; t < slice.models.size(); ++t) {
    const PlanModel& model = slice.models[t];
    add(model.gram, names.models[t], model.gram_num_examples);
  }
  if (!grams.empty() && grams.size() < wanted) {
    throw InputError(fmt::format(
        "{} has no Gram matrix for tensor {}, but other files have one",
        without->path().string(),
        quote(names.output)));
  }
  return grams;
}

} // namespace merganser
