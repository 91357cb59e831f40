#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "merganser/base/api.h"

namespace merganser {

// A value of config.json in which two models differ.
struct ConfigDifference {
  std::string key; // in the first file: "n_head", "text_config.hidden_act"
  nlohmann::json value;
  nlohmann::json other_value;
  // True if it gives tensors another meaning; others may change the model's
  // function, or only how it is used.
  bool refused;
};

// Compares two configurations of any architecture of transformers, with the
// configurations inside them. Names that transformers has for one value (its
// attribute_map, and those of rotary embeddings and activations) are one. A key
// that one of the two lacks has its default value there and is not compared;
// classes are check_configs'. any_depth: the number of layers may differ.
MERGANSER_API std::vector<ConfigDifference> compare_configs(
    const nlohmann::json& config,
    const nlohmann::json& other,
    bool any_depth);

} // namespace merganser
