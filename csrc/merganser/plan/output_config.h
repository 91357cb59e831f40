#pragma once

#include <filesystem>
#include <vector>

#include "merganser/base/api.h"
#include "merganser/io/safetensors.h"
#include "merganser/recipe/recipe.h"

namespace merganser {

// Throws InputError unless the file contains a JSON object, which the functions
// below need.
MERGANSER_API void check_output_config(const std::filesystem::path& config);

// Throws InputError for models whose layers slices cannot renumber: with two
// stacks (an encoder and a decoder, text and images) or with stages, by the
// names of the tensors or by the configuration, which must be valid.
MERGANSER_API void check_single_stack(
    const std::filesystem::path& config,
    const std::vector<TensorInfo>& tensors);

// Throws InputError if the configuration names layers by their numbers
// (mlp_only_layers: [0, 3]) and slices change these.
MERGANSER_API void check_layer_numbers(
    const std::filesystem::path& config,
    const std::vector<RecipeSlice>& slices);

// Sets the number of layers that the slices name, and selects their entries in
// lists with one entry per layer (layer_types).
MERGANSER_API void set_config_layers(
    const std::filesystem::path& config,
    const std::vector<RecipeSlice>& slices);

// Sets the type of the weights in a config.json, wherever it names one:
// transformers loads them in it.
MERGANSER_API void set_config_dtype(
    const std::filesystem::path& config,
    DType dtype);

} // namespace merganser
