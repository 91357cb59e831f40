#pragma once

#include <limits>
#include <optional>
#include <string_view>

namespace merganser {

// A parameter of a merge method, as recipes have it.
struct ParameterInfo {
  enum class Scope {
    kModel, // a value for every model
    kMerge, // one for all
  };
  std::string_view name = {};
  Scope scope = Scope::kMerge;
  bool is_flag = false; // true or false, kept as 1 or 0
  bool is_whole = false; // a whole number, not interpolated over the layers
  double least = std::numeric_limits<double>::lowest();
  double most = std::numeric_limits<double>::max();
  bool above_least = false; // `least` itself is not allowed
  // Absent: a recipe must have it.
  std::optional<double> fallback = std::nullopt;
  std::string_view meaning = {}; // for people
};

} // namespace merganser
