#pragma once

#include <string>
#include <vector>

namespace merganser {

// The names that checkpoints have for a parameter of the encoder, the usual one
// first: its own, without the prefix of a bare encoder, or those of LayerNorm's
// parameters in checkpoints converted from TensorFlow (bert-base-uncased).
std::vector<std::string> names_in_checkpoints(const std::string& parameter);

} // namespace merganser
