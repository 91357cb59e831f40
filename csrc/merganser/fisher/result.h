#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "merganser/base/api.h"
#include "merganser/io/fisher_file.h"

namespace merganser {

using NamedTensors = std::vector<std::pair<std::string, at::Tensor>>;

// Returns the tensors that a file holds for one of a Fisher: itself, or the
// means of its rows and columns. Throws as write_fisher_file does, but not for
// values that are not finite.
MERGANSER_API NamedTensors stored_tensors(
    const std::string& name,
    const at::Tensor& values,
    FisherStorage storage);

// Writes a Fisher or Gram matrices, in the file format of docs/method.md:
// safetensors, the checkpoint's names, in the form of metadata.storage. Throws
// Error naming the first tensor that is not finite, and InputError for negative
// values and for names that a factored file cannot have.
MERGANSER_API void write_fisher_file(
    const std::filesystem::path& file,
    const NamedTensors& tensors,
    const FisherMetadata& metadata);

// The mean Fisher diagonal and the metadata that a merge needs.
struct MERGANSER_API FisherResult {
  NamedTensors diagonal; // float32, mean F
  std::string estimator;
  int64_t num_examples = 0; // N of the data set: H = N F
  int64_t num_examples_used = 0;
  int64_t samples = 1;
  uint64_t seed = 0;
  std::string labels; // "model", "data"
  std::string model_hash; // Checkpoint::content_hash() of the model
  std::optional<FisherPoint> at =
      std::nullopt; // other weights than its model's
  std::optional<TaskVectorStatistics> task_vector = std::nullopt;
  std::optional<FisherScale> scale = std::nullopt;
  FisherStorage storage = FisherStorage::kFloat32; // of files

  // See write_fisher_file.
  void save(const std::filesystem::path& file) const;
  // Throws InputError for a file that save did not write.
  static FisherResult load(const std::filesystem::path& file);

  FisherMetadata metadata() const;
};

} // namespace merganser
