#pragma once

#include <optional>
#include <string>
#include <string_view>
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
  std::vector<std::string> experts; // the first of recipe.models, in this order
  std::vector<std::string> directions; // names of merges, after the experts
  Recipe recipe; // merges them; paths as in merges/NAME/recipe.yaml
  std::optional<MergeSweep> sweep = {};
};

// The recipe with one value of its sweep.
Recipe sweep_output(Recipe recipe, size_t i);

// True if the merge has the parameter rho, which Fishers measure.
bool uses_rho(const Recipe& recipe);

// True if the merge takes the scales of some Fishers from their files:
// `parameter` is fisher_scale or base_fisher_scale.
bool uses_measured_scale(const Recipe& recipe, std::string_view parameter);

// A recipe's base.
struct MergeBase {
  std::string name;
  std::string model; // path in the experiment's directory
};

// Parses one entry of `merges`: the recipe that merges the experts that it
// lists, by default all. `earlier`: merges that may be its directions.
ExperimentMerge parse_merge(
    const YamlValue& entry,
    const std::vector<std::string>& all,
    const MergeBase& base,
    const std::vector<ExperimentMerge>& earlier = {});

// True for task_arithmetic with weight 1 for every model.
bool is_sum_of_task_vectors(const Recipe& recipe);

} // namespace merganser
