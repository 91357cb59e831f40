#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "merganser/base/api.h"
#include "merganser/io/safetensors.h"

namespace merganser {

// The metadata of a Fisher file: safetensors with the checkpoint's tensor
// names, float32, holding the mean F. The only place where the keys are
// written (docs/method.md, section 4). A file of Gram matrices has the same
// keys, with kGramEstimator and the mean Gram matrix (in, in) under the name of
// a linear layer's weight (out, in).
inline constexpr const char* kGramEstimator = "gram";

struct MERGANSER_API FisherMetadata {
  std::string estimator;
  int64_t num_examples = 0; // N of the data set: H = N F
  int64_t num_examples_used = 0; // of which F is the mean
  int64_t samples = 1; // labels drawn per example
  uint64_t seed = 0;
  std::string labels; // "model" or "data"
  std::string base_model_hash; // Checkpoint::content_hash() of the model that
                               // it was taken of; empty: not known

  Metadata to_metadata() const;

  // nullopt when the file has no `format_version`: it was written by another
  // program. Throws InputError naming the file and key for a version that is
  // not known, a key that is missing, or a value that is not a whole number.
  static std::optional<FisherMetadata> parse(
      const Metadata& metadata,
      const std::filesystem::path& file);
};

} // namespace merganser
