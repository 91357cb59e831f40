#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "merganser/base/api.h"
#include "merganser/io/checkpoint.h"
#include "merganser/provenance/provenance.h"

namespace merganser {

// Contents of a checkpoint or Fisher file.
struct MERGANSER_API Inspection {
  std::filesystem::path path;
  std::vector<TensorInfo> tensors;
  Metadata metadata;
  int64_t parameters = 0; // elements of all tensors
  uint64_t bytes = 0; // of all tensors
  std::optional<std::string> content_hash; // absent: not requested
  // Each file and, if hashes were requested, its xxh3-128 (otherwise empty).
  std::vector<std::pair<std::filesystem::path, std::string>> files;

  std::optional<Provenance> provenance; // present if a merge wrote it

  std::string to_text() const;
  std::string to_json() const;
};

// Reads headers and, with `hashes`, all data. Throws InputError if `path` is
// not a checkpoint.
MERGANSER_API Inspection
inspect(const std::filesystem::path& path, bool hashes);

} // namespace merganser
