#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "merganser/base/api.h"

namespace merganser {

// Which layer of a stack a tensor belongs to, by its name: the number behind
// the first component that is layer, layers, h, block or blocks, as in
// "bert.encoder.layer.3.output.dense.weight" or "model.layers.3.mlp.up.weight".
MERGANSER_API std::optional<int> layer_of(std::string_view tensor);

// By the tensors' names: 0 in the first layer and 1 in the last one, 0 outside
// of the layers, before and behind them, as in mergekit 0.1.5.
MERGANSER_API std::vector<double> layer_depths(
    const std::vector<std::string>& tensors);
inline constexpr double kOuterDepth = 0;
double layer_depth(int layer, int layers);

// Whether a tensor outside of the layers belongs before them (embeddings)
// rather than behind.
MERGANSER_API bool is_before_layers(std::string_view tensor);

// The name with another number there.
MERGANSER_API std::string with_layer(std::string_view tensor, int layer);

} // namespace merganser
