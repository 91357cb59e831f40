#pragma once

#include <filesystem>
#include <vector>

#include "merganser/io/dtype.h"
#include "merganser/recipe/recipe.h"

namespace merganser {

// Throws InputError where it is no JSON object, which the others need.
void check_config(const std::filesystem::path& config);

// Of the layers that the slices name: their number, and their entries in the
// lists that have one for each layer (layer_types).
void set_config_layers(
    const std::filesystem::path& config,
    const std::vector<RecipeSlice>& slices);

// Sets the type of the weights in a config.json: transformers loads them in it.
void set_config_dtype(const std::filesystem::path& config, DType dtype);

} // namespace merganser
