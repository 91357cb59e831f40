#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "merganser/base/api.h"

namespace merganser {

// The index of a tensor's layer, from its name: the number after the first
// component that is layer, layers, h, block or blocks, as in
// "bert.encoder.layer.3.output.dense.weight" or "model.layers.3.mlp.up.weight".
MERGANSER_API std::optional<int> layer_of(std::string_view tensor);

// The name up to that number, "bert.encoder.layer.", which differs between the
// stacks of a model.
MERGANSER_API std::optional<std::string> stack_of(std::string_view tensor);

// The depths of tensors, from their names: 0 in the first layer and 1 in the
// last one, 0 outside the layers, before and after them, as in mergekit 0.1.5.
MERGANSER_API std::vector<double> layer_depths(
    const std::vector<std::string>& tensors);
inline constexpr double kOuterDepth = 0;
double layer_depth(int layer, int layers);

// True for a tensor that comes before the layers (embeddings), false for one
// that comes after them; `tensor` is in no layer.
MERGANSER_API bool is_before_layers(std::string_view tensor);

// The one of the names of tied tensors that gives them random choices: that
// under which transformers stores them, of the table of input tokens.
MERGANSER_API std::string canonical_name(const std::vector<std::string>& tied);

// The name with another layer index.
MERGANSER_API std::string with_layer(std::string_view tensor, int layer);

} // namespace merganser
