#pragma once

#include <filesystem>
#include <vector>

#include "merganser/io/dtype.h"
#include "merganser/recipe/recipe.h"

namespace merganser {

// Throws InputError unless the file contains a JSON object, which the functions
// below need.
void check_output_config(const std::filesystem::path& config);

// Sets the number of layers that the slices name, and selects their entries in
// lists with one entry per layer (layer_types).
void set_config_layers(
    const std::filesystem::path& config,
    const std::vector<RecipeSlice>& slices);

// Sets the type of the weights in a config.json: transformers loads them in it.
void set_config_dtype(const std::filesystem::path& config, DType dtype);

} // namespace merganser
