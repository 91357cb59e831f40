#pragma once

#include <filesystem>
#include <optional>
#include <vector>

#include "merganser/io/yaml_value.h"
#include "merganser/recipe/recipe.h"

// Read the lists of a recipe. Paths are relative to `folder`. Throw InputErrors
// with all errors of a list.
namespace merganser {

// mergekit's reference to a model: "model", "model+adapter", or the mapping
// {model: {path: model}, lora: {path: adapter}}.
struct ModelReference {
  std::filesystem::path model;
  std::optional<std::filesystem::path> adapter;
};

ModelReference parse_model_reference(
    const YamlValue& value,
    const std::filesystem::path& folder);

std::vector<RecipeModel> parse_models(
    const YamlValue& list,
    const MethodInfo& method,
    const std::filesystem::path& folder);

std::vector<RecipeSlice> parse_slices(
    const YamlValue& list,
    const MethodInfo& method,
    const std::filesystem::path& folder);

} // namespace merganser
