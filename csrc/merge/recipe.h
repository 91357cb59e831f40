#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "io/api.h"
#include "io/dtype.h"
#include "merge/method.h"

namespace merganser {

// What to do with tensors of the classification head (classifier.*, score.*):
// merged like all others; one copy per task beside the merged model, whose own
// head is the base's; or the base's only.
enum class HeadMode { kMerge, kPerTask, kBase };

struct RecipeModel {
  std::filesystem::path model;
  std::optional<std::filesystem::path> fisher;
  double weight = 1.0; // alpha_t
  std::optional<double>
      num_examples; // N_t; from the Fisher's metadata if absent
};

// A parsed recipe: a superset of mergekit's YAML for the methods both have.
// Paths are resolved against the recipe's folder.
//
//   merge_method: gradient_matching
//   base_model: models/base
//   base_fisher: fishers/base.safetensors
//   models:
//     - model: models/a
//       fisher: fishers/a.safetensors
//       parameters: {weight: 1.0}
//   parameters: {delta: 1e-12}
//   heads: merge
//   out_dtype: float32
struct MERGANSER_API Recipe {
  MergeMethod method = MergeMethod::kLinear;
  std::optional<std::filesystem::path> base_model;
  std::optional<std::filesystem::path> base_fisher;
  std::optional<double> base_num_examples; // N_0
  std::vector<RecipeModel> models;
  bool normalize = true; // linear: divide the weights by their sum
  double delta = 1e-12;
  double clamp = 0.5; // removal
  double floor = 1e-6; // ewr
  HeadMode heads = HeadMode::kMerge;
  std::optional<DType> out_dtype; // absent: as in the base (or first model)

  // Throws InputError with file, line and column: unknown key, wrong type,
  // value out of range, what the method needs and is not there.
  static Recipe load(const std::filesystem::path& path);
  static Recipe parse(
      const std::string& yaml,
      const std::filesystem::path& folder,
      const std::string& source_name);
};

} // namespace merganser
