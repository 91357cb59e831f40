#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "merganser/base/api.h"
#include "merganser/io/fisher_scale.h"
#include "merganser/io/safetensors.h"
#include "merganser/io/task_vector.h"

namespace merganser {

// The form in which a file holds F; sums and merges are float32 in any case.
enum class FisherStorage {
  kFloat32,
  kBFloat16, // rounded, 0.4 % of each value
  // Matrices as the means of their rows and columns (io/factored_tensor.h), if
  // those are fewer values; other tensors whole, in float32.
  kFactored,
};

// Throws InputError for an unknown name.
MERGANSER_API FisherStorage parse_storage(std::string_view name);
MERGANSER_API std::string_view storage_name(FisherStorage storage);
// All names, separated by commas.
MERGANSER_API std::string storage_names();

// The name in a file's metadata; "float32" where they have none.
MERGANSER_API std::string_view storage_of(const Metadata& metadata);

// "f.safetensors (factored)", as tables show a file that is not float32.
MERGANSER_API std::string with_storage(
    const std::filesystem::path& path,
    std::string_view storage);

// Reads the Fisher's elements from `begin` on as float32. Throws InputError
// unless it is F32 or BF16.
MERGANSER_API void read_fisher_values(
    const StoredTensor& fisher,
    std::span<float> out,
    int64_t begin = 0);

// The metadata of a Fisher file: safetensors with the checkpoint's tensor
// names, holding the mean F. The only definition of the keys
// (docs/method.md, section 4). A file of Gram matrices has the same keys, with
// kGramEstimator and the mean Gram matrix (in, in) under the name of a linear
// layer's weight (out, in).
inline constexpr const char* kGramEstimator = "gram";

// The weights that a Fisher was estimated at, if other than its model's: those
// of another model, or points along the path there from its own.
struct FisherPoint {
  std::string model_hash; // Checkpoint::content_hash() of the other model
  int64_t along = 0; // points that F averages; 0: the other model itself
};

struct MERGANSER_API FisherMetadata {
  std::string estimator;
  int64_t num_examples = 0; // N of the data set: H = N F
  int64_t num_examples_used = 0; // examples that F averages
  int64_t samples = 1; // labels drawn per example
  uint64_t seed = 0;
  std::string labels; // "model" or "data"
  std::string base_model_hash; // Checkpoint::content_hash() of its model;
                               // empty, or missing in the file: unknown
  std::optional<FisherPoint> at = std::nullopt;
  std::optional<TaskVectorStatistics> task_vector = std::nullopt;
  std::optional<FisherScale> scale = std::nullopt; // merganser calibrate
  FisherStorage storage = FisherStorage::kFloat32; // missing: float32

  Metadata to_metadata() const;

  // Returns nullopt for a file without `format_version`, which another program
  // wrote. Throws InputError naming the file and key for an unknown version, a
  // missing key (except base_model_hash), an unknown storage, or a value that
  // is not an integer.
  static std::optional<FisherMetadata> parse(
      const Metadata& metadata,
      const std::filesystem::path& file);
};

// Copies a Fisher's file, or its shards into one, with another scale in its
// metadata, which keep unknown keys; atomically, in parts, so that `to` may be
// the file itself. Throws InputError for a file that Merganser did not write.
MERGANSER_API void copy_with_scale(
    const std::filesystem::path& from,
    const std::filesystem::path& to,
    const FisherScale& scale);

} // namespace merganser
