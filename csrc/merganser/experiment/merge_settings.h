#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "merganser/experiment/settings.h"
#include "merganser/io/yaml_value.h"

namespace merganser {

// One entry of `merges`: the recipe that merges the named experts.
ExperimentMerge parse_merge(
    const YamlValue& entry,
    const std::vector<std::string>& experts);

// The recipe's file, for `merganser merge`. Paths as they are in the recipe.
std::string recipe_text(const Recipe& recipe);

} // namespace merganser
