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

// What a checkpoint or Fisher file holds.
struct MERGANSER_API Inspection {
  std::filesystem::path path;
  std::vector<TensorInfo> tensors;
  Metadata metadata;
  int64_t parameters = 0; // elements of all tensors
  uint64_t bytes = 0; // of all tensors
  std::optional<std::string> content_hash; // absent: not asked for
  // Each file and, if hashes were asked for, its xxh3-128 (else empty).
  std::vector<std::pair<std::filesystem::path, std::string>> files;

  std::optional<Provenance> provenance; // of a folder that a merge made

  std::string to_text() const;
  std::string to_json() const;
};

// Reads headers and, with `hashes`, all data. Throws InputError when `path` is
// not a checkpoint.
MERGANSER_API Inspection
inspect(const std::filesystem::path& path, bool hashes);

} // namespace merganser
