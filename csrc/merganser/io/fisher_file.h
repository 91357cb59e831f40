#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "merganser/base/api.h"
#include "merganser/io/safetensors.h"
#include "merganser/io/task_vector.h"

namespace merganser {

// The metadata of a Fisher file: safetensors with the checkpoint's tensor
// names, float32, holding the mean F. The only definition of the keys
// (docs/method.md, section 4). A file of Gram matrices has the same keys, with
// kGramEstimator and the mean Gram matrix (in, in) under the name of a linear
// layer's weight (out, in).
inline constexpr const char* kGramEstimator = "gram";

struct MERGANSER_API FisherMetadata {
  std::string estimator;
  int64_t num_examples = 0; // N of the data set: H = N F
  int64_t num_examples_used = 0; // examples that F averages
  int64_t samples = 1; // labels drawn per example
  uint64_t seed = 0;
  std::string labels; // "model" or "data"
  std::string base_model_hash; // Checkpoint::content_hash() of its model;
                               // empty, or missing in the file: unknown
  std::optional<TaskVectorStatistics> task_vector = std::nullopt;

  Metadata to_metadata() const;

  // Returns nullopt for a file without `format_version`, which another program
  // wrote. Throws InputError naming the file and key for an unknown version, a
  // missing key (except base_model_hash), or a value that is not an integer.
  static std::optional<FisherMetadata> parse(
      const Metadata& metadata,
      const std::filesystem::path& file);
};

} // namespace merganser
