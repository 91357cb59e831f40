#pragma once

#include <functional>
#include <initializer_list>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "merganser/base/api.h"
#include "merganser/recipe/method.h"

namespace merganser {

class YamlValue;

// The value of a parameter in a recipe, which may depend on the tensor:
//
//   0.5                                        for every tensor
//   [0, 0.5, 1]                                interpolated over the layers
//   [{filter: mlp, value: 0.5}, {value: 1}]    the first rule whose filter
//                                              occurs in the tensor's name
//
// as in mergekit; and, in Merganser only, `auto` in place of a number where the
// parameter allows it, and
//
//   {sweep: [0.2, 0.4]}                        one output per value
class MERGANSER_API Setting {
 public:
  // Throws InputError with the place in the recipe for any other value, and for
  // one outside the parameter's range.
  static Setting parse(const YamlValue& value, const ParameterInfo& parameter);

  // The value for a tensor at `depth`: 0 in the first layer and outside the
  // layers, 1 in the last one. nullopt if no rule matches. `sweep`: the index
  // of the output.
  std::optional<double> at(
      std::string_view tensor,
      double depth,
      size_t sweep = 0) const;

  // True if the value is the same for every tensor and output.
  bool is_constant() const {
    return !is_sweep_ && rules_.size() == 1 && rules_[0].filter.empty() &&
        rules_[0].values.size() == 1;
  }

  // True if it is `auto`, at least for some tensors.
  bool has_auto() const;

  // The YAML of the setting, on one line.
  std::string to_yaml() const;

  // The constant setting of one output of a sweep; others stay unchanged.
  Setting output(size_t sweep) const;

  bool is_sweep() const {
    return is_sweep_;
  }
  // The number of outputs; 1 without a sweep.
  size_t outputs() const {
    return is_sweep_ ? rules_.front().values.size() : 1;
  }

 private:
  struct Rule {
    std::string filter; // empty: every tensor
    std::vector<double> values; // one, or several to interpolate
  };
  std::vector<Rule> rules_;
  bool is_sweep_ = false;
};

// The value that a parameter takes from elsewhere, where it may be.
inline constexpr const char* kAutoText = "auto";

// The settings of a level, by parameter.
using Settings = std::map<std::string, Setting, std::less<>>;

// The setting from the first level that has it; nullptr: none.
MERGANSER_API const Setting* find_setting(
    std::string_view name,
    std::initializer_list<const Settings*> levels);

} // namespace merganser
