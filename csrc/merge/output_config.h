#pragma once

#include <filesystem>

#include "io/dtype.h"

namespace merganser {

// Throws InputError where it is no JSON object, which the others need.
void check_config(const std::filesystem::path& config);

// Sets the number of layers, where the config has one.
void set_config_layers(const std::filesystem::path& config, int layers);

// Sets the type of the weights in a config.json: transformers loads them in it.
void set_config_dtype(const std::filesystem::path& config, DType dtype);

} // namespace merganser
