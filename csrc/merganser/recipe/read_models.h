#pragma once

#include <filesystem>
#include <vector>

#include "merganser/io/yaml_value.h"
#include "merganser/recipe/recipe.h"

// Read the lists of a recipe. Paths are relative to `folder`. Throw InputErrors
// with all errors of a list.
namespace merganser {

std::vector<RecipeModel> parse_models(
    const YamlValue& list,
    const MethodInfo& method,
    const std::filesystem::path& folder);

std::vector<RecipeSlice> parse_slices(
    const YamlValue& list,
    const MethodInfo& method,
    const std::filesystem::path& folder);

} // namespace merganser
