#include "merganser/plan/check_adapters.h"

#include <fmt/format.h>

#include <map>

#include "merganser/base/quote.h"
#include "merganser/plan/tensor_planner.h"

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
void check_targets(
    const PlanModel& model,
    const NamedCheckpoint& weights,
    Problems& problems) {
  for (const std::string& name : model.adapter->tensors()) {
    const TensorInfo* info = weights.find(model.adapter_names.name_of(name));
    if (info == nullptr && model.adapter->replacement(name)) {
      continue; // checked by check_added
    }
    if (info == nullptr) {
      problems.add(fmt::format(
          "adapter {} targets tensor {}, which {} does not have",
          model.recipe.adapter->string(),
          quote(name),
          weights.file.path().string()));
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
          weights.file.path().string(),
          info->shape_text()));
    }
  }
}

// True if the model or its adapter has the tensor.
bool has_tensor(
    const MergePlan& plan,
    const PlanModel& model,
    const std::string& name) {
  if (plan.named(model.weights).find(name) != nullptr) {
    return true;
  }
  const std::string* changed =
      model.adapter ? model.adapter_names.find(name) : nullptr;
  return changed != nullptr && model.adapter->replacement(*changed);
}

// The path of what lacks a tensor that an adapter adds to its model: a base, or
// the model of slices; another model; the model's Fisher. Empty: none.
std::string without_added(
    const MergePlan& plan,
    const PlanSlice& slice,
    const PlanModel& model,
    const std::string& name) {
  if (plan.base || !plan.recipe.slices.empty()) {
    return plan.inputs[plan.reference_weights]->path().string();
  }
  for (const PlanModel& other : slice.models) {
    if (!has_tensor(plan, other, name)) {
      return other.recipe.model.string();
    }
  }
  return model.fisher && plan.named(*model.fisher).find(name) == nullptr
      ? model.recipe.fisher->string()
      : "";
}

// Checks tensors that the adapter stores whole and that its model lacks. They
// are merged where nothing else lacks them; heads may also be stored apart.
void check_added(
    const MergePlan& plan,
    const PlanSlice& slice,
    const PlanModel& model,
    Problems& problems) {
  std::map<std::string, std::vector<std::string>> names; // by what lacks them
  for (const std::string& name : added_tensors(plan, model)) {
    const std::string without = without_added(plan, slice, model, name);
    if (!plan.is_head(name) && !without.empty()) {
      names[without].push_back(quote(name));
    }
  }
  for (const auto& [without, lacking] : names) {
    problems.add(fmt::format(
        "adapter {} has tensors that {} lacks: {}",
        model.recipe.adapter->string(),
        without,
        list_some(lacking)));
  }
}

} // namespace

void check_adapter(
    const MergePlan& plan,
    const PlanSlice& slice,
    const PlanModel& model,
    Problems& problems) {
  check_targets(model, plan.named(model.weights), problems);
  check_added(plan, slice, model, problems);
}

} // namespace merganser
