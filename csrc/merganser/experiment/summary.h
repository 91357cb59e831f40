#pragma once

#include <nlohmann/json_fwd.hpp>

#include "merganser/base/api.h"

// Quantities of results.json that follow from its `models`.
namespace merganser {

// Adds `share_of_gap` to every model: where its average accuracy lies between
// those of the two models of `gap`.
MERGANSER_API void add_share_of_gap(nlohmann::ordered_json& results);

// Adds `retained` to every model: its accuracy on the set that the base was
// trained on, `base_data`, as a share of the base's. Absent if that is 0.
MERGANSER_API void add_retained(nlohmann::ordered_json& results);

// Adds `best`: the merges with the highest average accuracy and the lowest
// average loss, the first of equals.
MERGANSER_API void add_best(nlohmann::ordered_json& results);

} // namespace merganser
