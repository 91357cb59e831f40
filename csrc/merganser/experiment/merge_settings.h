#pragma once

#include <string>
#include <vector>

#include "merganser/io/yaml_value.h"
#include "merganser/recipe/recipe.h"

namespace merganser {

struct ExperimentMerge {
  std::string name;
  Recipe recipe; // merges the experts; paths as in merges/NAME/recipe.yaml
};

// Paths of a recipe's base, relative to the experiment's directory.
struct MergeBase {
  std::string model;
  std::string fisher;
};

// Parses one entry of `merges`: the recipe that merges the named experts.
ExperimentMerge parse_merge(
    const YamlValue& entry,
    const std::vector<std::string>& experts,
    const MergeBase& base);

// The text of a recipe file for `merganser merge`, with the recipe's paths.
std::string recipe_text(const Recipe& recipe);

} // namespace merganser
