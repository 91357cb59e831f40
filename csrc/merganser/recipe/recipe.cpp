#include "merganser/recipe/recipe.h"

#include <algorithm>

#include "merganser/recipe/parameter_values.h"

namespace merganser {

bool Recipe::grams_of_task_vectors() const {
  const auto take = [](const std::vector<RecipeModel>& of) {
    return std::ranges::any_of(of, &RecipeModel::gram_of_task_vector);
  };
  return method->needs_grams() &&
      (take(models) || std::ranges::any_of(slices, take, &RecipeSlice::models));
}

bool Recipe::has_auto_weights() const {
  std::vector<const Settings*> settings;
  for (const RecipeModel& model : models) {
    settings.push_back(&model.parameters);
  }
  return method->find_parameter("weight") != nullptr &&
      weights_are_auto(settings, parameters);
}

std::string_view head_mode_name(HeadMode mode) {
  switch (mode) {
    case HeadMode::kMerge:
      return "merge";
    case HeadMode::kPerTask:
      return "per_task";
    case HeadMode::kBase:
      return "base";
  }
  return "";
}

} // namespace merganser
