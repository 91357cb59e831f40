#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "io/api.h"

namespace merganser {

// Where a merged model comes from: the file merganser.json beside it. Content
// hashes as in io/content_hash.h.
struct MERGANSER_API Provenance {
  struct Input {
    std::filesystem::path path;
    std::string content_hash;
    bool operator==(const Input&) const = default;
  };

  std::string version; // Merganser's
  std::string identity; // of the merge: see merge_identity
  std::string method;
  std::string recipe; // its text
  std::string recipe_hash; // xxh3-128 of it
  std::vector<Input> inputs;
  std::string content_hash; // of the merged model
  int64_t clamped = 0; // as in MergeReport
  int64_t nonfinite = 0;

  std::string to_json() const;
  void write(const std::filesystem::path& folder) const;
  // Nothing where the folder has no such file; InputError where it is damaged.
  static std::optional<Provenance> read(const std::filesystem::path& folder);
};

inline constexpr const char* kProvenanceFile = "merganser.json";

} // namespace merganser
