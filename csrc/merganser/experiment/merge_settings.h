#pragma once

#include <optional>
#include <string>
#include <vector>

#include "merganser/io/yaml_value.h"
#include "merganser/recipe/recipe.h"

namespace merganser {

// Values of one parameter, of which the validation parts choose one.
struct MergeSweep {
  std::string parameter;
  std::vector<double> values;
  bool by_loss = false; // the lowest loss instead of the highest accuracy
};

struct ExperimentMerge {
  std::string name;
  std::vector<std::string> experts; // in the order of recipe.models
  Recipe recipe; // merges them; paths as in merges/NAME/recipe.yaml
  std::optional<MergeSweep> sweep = {};
};

// The recipe with one value of its sweep.
Recipe sweep_output(Recipe recipe, size_t i);

// Paths of a recipe's base, relative to the experiment's directory.
struct MergeBase {
  std::string model;
  std::string fisher;
  std::string gram;
};

// Parses one entry of `merges`: the recipe that merges the experts that it
// lists, by default all.
ExperimentMerge parse_merge(
    const YamlValue& entry,
    const std::vector<std::string>& all,
    const MergeBase& base);

// True for task_arithmetic with weight 1 for every model.
bool is_sum_of_task_vectors(const Recipe& recipe);

} // namespace merganser
