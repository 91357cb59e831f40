#pragma once

#include <string>
#include <vector>

#include "merganser/io/yaml_value.h"
#include "merganser/recipe/recipe.h"

namespace merganser {

struct ExperimentMerge {
  std::string name;
  Recipe recipe; // of the experts, with paths as in merges/NAME/recipe.yaml
};

// One entry of `merges`: the recipe that merges the named experts.
ExperimentMerge parse_merge(
    const YamlValue& entry,
    const std::vector<std::string>& experts);

// The recipe's file, for `merganser merge`. Paths as they are in the recipe.
std::string recipe_text(const Recipe& recipe);

} // namespace merganser
