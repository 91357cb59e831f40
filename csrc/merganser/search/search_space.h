#pragma once

#include <optional>
#include <string>
#include <vector>

#include "merganser/base/api.h"
#include "merganser/recipe/recipe.h"

namespace merganser {

// A parameter of a recipe whose value a search chooses.
struct MERGANSER_API SearchedParameter {
  std::string key; // "weight", or of one model "models.1.weight"
  const ParameterInfo* parameter = nullptr;
  std::optional<size_t> model; // none: of all models, or of the merge
  // Values to choose from, as in YAML; or none, and a range:
  std::vector<std::string> values;
  double low = 0;
  double high = 0;
  bool logarithmic = false;

  // The value at u in [0, 1), as in YAML: of a list each with an equal share,
  // of a range rounded to four digits, or to an integer.
  std::string at(double u) const;
};

using SearchSpace = std::vector<SearchedParameter>;

// Parses "KEY=LOW..HIGH", "KEY=LOW..HIGH:log" and "KEY=VALUE,VALUE,...", with
// the KEY "weight" for one value of the merge or of all models,
// "models.1.weight" for one of a model, from 0, and "models.*.weight" for one
// of each model. Throws InputError for an unknown parameter, a value outside
// its range or an empty range.
MERGANSER_API SearchSpace
parse_search_space(const Recipe& recipe, const std::vector<std::string>& over);

// The recipe with a value for each parameter of the space.
MERGANSER_API Recipe with_values(
    Recipe recipe,
    const SearchSpace& space,
    const std::vector<std::string>& values);

} // namespace merganser
