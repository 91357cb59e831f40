#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "io/api.h"

namespace merganser {

// Which layer of a stack a tensor belongs to, by its name: the number behind
// the first component that is layer, layers, h, block or blocks, as in
// "bert.encoder.layer.3.output.dense.weight" or "model.layers.3.mlp.up.weight".
MERGANSER_API std::optional<int> layer_of(std::string_view tensor);

// Whether a tensor outside of the layers belongs before them (embeddings)
// rather than behind.
MERGANSER_API bool is_before_layers(std::string_view tensor);

// The name with another number there.
MERGANSER_API std::string with_layer(std::string_view tensor, int layer);

} // namespace merganser
