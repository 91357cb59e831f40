#pragma once

#include <nlohmann/json_fwd.hpp>
#include <vector>

#include "merganser/base/api.h"

// Statistics over values of the same shape, one per seed.
namespace merganser {

// Numbers: their mean; objects: the keys of the first that all have; lists of
// equal length: by position; anything else: the first value.
MERGANSER_API nlohmann::ordered_json mean_over_seeds(
    const std::vector<nlohmann::ordered_json>& values);

// The standard error of each number's mean, in the same shape. At least two
// values.
MERGANSER_API nlohmann::ordered_json standard_error_over_seeds(
    const std::vector<nlohmann::ordered_json>& values);

} // namespace merganser
