#pragma once

#include <filesystem>

#include "io/dtype.h"

namespace merganser {

// Sets the type of the weights in a config.json: transformers loads them in it.
void set_config_dtype(const std::filesystem::path& config, DType dtype);

} // namespace merganser
