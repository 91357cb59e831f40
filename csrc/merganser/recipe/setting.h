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
//   [{filter: mlp, value: 0.5}, {value: 1}]    the first rule whose filter is
//                                              part of the tensor's name
//
// as in mergekit; and, of Merganser,
//
//   {sweep: [0.2, 0.4]}                        one output for each
class MERGANSER_API Setting {
 public:
  // Throws InputError with the place in the recipe for a value that is none of
  // these or out of the parameter's range.
  static Setting parse(const YamlValue& value, const ParameterInfo& parameter);

  // Of a tensor at `depth`: 0 in the first layer and outside of the layers, 1
  // in the last one. Nothing where no rule is for the tensor. `sweep`: which of
  // the outputs.
  std::optional<double> at(
      std::string_view tensor,
      double depth,
      size_t sweep = 0) const;

  // The same for every tensor and output.
  bool is_constant() const {
    return !is_sweep_ && rules_.size() == 1 && rules_[0].filter.empty() &&
        rules_[0].values.size() == 1;
  }

  // As it stands in a recipe, on one line.
  std::string to_yaml() const;

  bool is_sweep() const {
    return is_sweep_;
  }
  // How many outputs; 1 where there is no sweep.
  size_t outputs() const {
    return is_sweep_ ? rules_.front().values.size() : 1;
  }

 private:
  struct Rule {
    std::string filter; // empty: every tensor
    std::vector<double> values; // one, or what is interpolated
  };
  std::vector<Rule> rules_;
  bool is_sweep_ = false;
};

using Settings = std::map<std::string, Setting, std::less<>>; // by parameter

// In the first of the levels that has it; nullptr: none.
MERGANSER_API const Setting* find_setting(
    std::string_view name,
    std::initializer_list<const Settings*> levels);

} // namespace merganser
