#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "merganser/base/api.h"
#include "merganser/io/dtype.h"
#include "merganser/recipe/method.h"
#include "merganser/recipe/setting.h"

namespace merganser {

// The handling of the classification head's tensors: merged like all others;
// the base's; or the base's, with each task's own in a file next to the model.
enum class HeadMode { kMerge, kPerTask, kBase };
MERGANSER_API std::string_view head_mode_name(HeadMode mode);

// The value of a model's key `gram` that takes the task vector in place of a
// file.
inline constexpr std::string_view kTaskVectors = "task_vectors";

struct RecipeModel {
  std::filesystem::path model;
  std::optional<std::filesystem::path> adapter; // LoRA, added to it
  std::optional<std::filesystem::path> fisher;
  std::optional<std::filesystem::path> gram;
  bool gram_of_task_vector = false; // gram: task_vectors
  // N_t; default: that in the metadata of the Fisher or Gram file.
  std::optional<double> num_examples;
  Settings parameters;
  int first_layer = 0; // in a slice: layers [first_layer, last_layer)
  int last_layer = 0;
};

// Layers of the output, merged from the same number of layers of some models.
struct RecipeSlice {
  std::vector<RecipeModel> models;
  Settings parameters;
  int base_first_layer = 0; // the base's first layer; the count is the same
};

// A parsed recipe: a superset of mergekit's YAML for the methods of both.
// Relative paths start at the recipe's directory. docs/recipes.md lists the
// keys.
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
  const MethodInfo* method = nullptr;
  std::optional<std::filesystem::path> base_model;
  std::optional<std::filesystem::path> base_fisher;
  std::optional<std::filesystem::path> base_gram;
  std::optional<std::filesystem::path> subspace; // a subspace Fisher
  std::optional<double> base_num_examples; // N_0
  std::vector<RecipeModel> models; // either these...
  std::vector<RecipeSlice> slices; // ...or these
  Settings parameters;
  HeadMode heads = HeadMode::kMerge;
  bool float64 = false; // arithmetic; default: float32, float64 for F64 tensors
  std::optional<DType> out_dtype; // default: that of the base (or first model)
  std::string source; // the file, as named in errors
  std::string text; // the YAML text

  // True if the method has Gram matrices and takes them from the task vectors.
  bool grams_of_task_vectors() const;
  // True if the weights are `auto`, from the subspace Fisher.
  bool has_auto_weights() const;
  bool uses_subspace() const {
    return method->needs_subspace || has_auto_weights();
  }

  // Throw InputError with file, line and column: unknown key, wrong type, value
  // out of range, missing input of the method.
  static Recipe load(const std::filesystem::path& path);
  static Recipe parse(
      const std::string& yaml,
      const std::filesystem::path& folder,
      const std::string& source_name);
};

} // namespace merganser
