#include "merganser/recipe/recipe.h"

#include "merganser/recipe/parameter_values.h"

namespace merganser {

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
