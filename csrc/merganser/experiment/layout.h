#pragma once

#include <cstdint>
#include <string>

#include "merganser/io/yaml_value.h"

// Paths of an experiment's outputs, relative to its directory.
namespace merganser::layout {

inline const std::string kBase = "base"; // reserved: not for data sets
inline const std::string kTarget = "target";
// Models of `removal`.
inline const std::string kRetrained = "retrained";
inline const std::string kRemovalExpert = "removal_expert";

inline const std::string kData = "data.json";
inline const std::string kSubspace = "subspace.safetensors";
inline const std::string kComparisons = "comparisons.json";
inline const std::string kResults = "results.json";

// `part`: train, validation or test.
inline std::string sample(const std::string& set, const std::string& part) {
  return "data/" + set + "/" + part + ".jsonl";
}

inline std::string sweep(const std::string& merge, const std::string& file) {
  return "sweeps/" + merge + "/" + file;
}

inline std::string model(const std::string& name) {
  return "models/" + name;
}

inline std::string fisher(const std::string& name) {
  return "fishers/" + name + ".safetensors";
}

// The Fisher with its scale along the path to the model kAverage.
inline std::string calibrated(const std::string& name) {
  return "calibrated/" + name + ".safetensors";
}
inline const std::string kAverage = "calibrated/average";

inline std::string gram(const std::string& name) {
  return "grams/" + name + ".safetensors";
}

inline std::string recipe(const std::string& merge) {
  return "merges/" + merge + "/recipe.yaml";
}

inline std::string merged_model(const std::string& merge) {
  return "merges/" + merge + "/model";
}

inline std::string refinement(const std::string& name) {
  return "refinements/" + name;
}

inline std::string seed(uint64_t seed) {
  return "seeds/" + std::to_string(seed);
}

inline std::string evaluation(const std::string& name) {
  return "evaluations/" + name + ".json";
}

inline std::string predictions(const std::string& name) {
  return "evaluations/" + name + ".safetensors";
}

inline std::string mismatch(const std::string& name) {
  return "mismatches/" + name + ".json";
}

inline std::string removal(const std::string& name) {
  return "removals/" + name + ".json";
}

// Path from a recipe's directory to the experiment's.
inline const std::string kUpFromRecipe = "../../";

// Checks the name of a data set or a merge: names become file names and words
// of recipes. Throws InputError at `place`.
void check_name(const YamlValue& place, const std::string& name);

} // namespace merganser::layout
