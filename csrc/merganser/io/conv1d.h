#pragma once

#include <string_view>

namespace merganser {

// True if the text of a config.json names, at any depth, an architecture of
// transformers that has Conv1D, whose weights are stored as (in, out).
bool has_conv1d(std::string_view config);

} // namespace merganser
