#pragma once

#include <string>

#include "merganser/io/yaml_value.h"

// Where an experiment keeps what it makes, relative to its folder.
namespace merganser::layout {

inline const std::string kBase = "base"; // names that no data set may have
inline const std::string kTarget = "target";

inline const std::string kData = "data.json";
inline const std::string kResults = "results.json";

inline std::string model(const std::string& name) {
  return "models/" + name;
}

inline std::string fisher(const std::string& name) {
  return "fishers/" + name + ".safetensors";
}

inline std::string recipe(const std::string& merge) {
  return "merges/" + merge + "/recipe.yaml";
}

inline std::string merged_model(const std::string& merge) {
  return "merges/" + merge + "/model";
}

inline std::string evaluation(const std::string& name) {
  return "evaluations/" + name + ".json";
}

// From a recipe's folder back to the experiment's.
inline const std::string kUpFromRecipe = "../../";

// Checks a name that the user gave to a data set or a merge: names become file
// names and words of the recipes that are written. Throws InputError at
// `place`.
void check_name(const YamlValue& place, const std::string& name);

} // namespace merganser::layout
