#pragma once

#include <fmt/format.h>

#include <cstddef>
#include <vector>

#include "merganser/base/error.h"

namespace merganser::app {

// Checks how often an option was given. `rule`: such as "once per expert".
inline void check_per_expert(
    size_t count,
    const char* option,
    const char* rule,
    size_t experts) {
  if (count != experts) {
    throw InputError(fmt::format(
        "expected {} {}, got {} for {} experts", option, rule, count, experts));
  }
}

// A weight for each expert, from those of --weight: one per expert, one for
// all, or none, which is 1.
inline std::vector<double> weights_per_expert(
    const std::vector<double>& weights,
    size_t experts) {
  if (weights.size() > 1) {
    check_per_expert(
        weights.size(), "--weight", "once, or once per expert", experts);
    return weights;
  }
  return std::vector<double>(experts, weights.empty() ? 1.0 : weights[0]);
}

} // namespace merganser::app
