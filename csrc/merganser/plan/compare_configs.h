#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "merganser/base/api.h"

namespace merganser {

// A value of config.json in which two models differ.
struct ConfigDifference {
  // Name in the first file that has it: "n_head", "text_config.hidden_act".
  std::string key;
  nlohmann::json value; // discarded: this file lacks the key
  nlohmann::json other_value; // likewise
  // True if it gives tensors another meaning; others may change the model's
  // function, or only how it is used.
  bool refused;
};

// Compares two configurations of any architecture of transformers, with the
// configurations inside them. Names that transformers has for one value (its
// attribute_map, and those of rotary embeddings and activations) are one. A key
// that one of the two lacks has its default value there: it is listed, and not
// refused, if it gives tensors their meaning, except for rotary embeddings.
// Classes are check_configs'. any_depth: the number of layers may differ.
MERGANSER_API std::vector<ConfigDifference> compare_configs(
    const nlohmann::json& config,
    const nlohmann::json& other,
    bool any_depth);

} // namespace merganser
