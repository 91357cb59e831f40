#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "merganser/base/api.h"
#include "merganser/io/checkpoint.h"

namespace merganser {

// Where a merged model comes from: the file merganser.json beside it. Content
// hashes as in io/content_hash.h.
struct MERGANSER_API Provenance {
  struct Input {
    std::filesystem::path path; // as the recipe leads to it
    std::filesystem::path from_output; // the same, relative to the output
    std::string content_hash;
    std::string settings_hash; // see below
  };

  std::string version; // Merganser's
  std::string identity; // of the merge: see merge_identity
  std::string method;
  std::string output; // of a sweep: "weight=0.2"
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

// Of what a merge takes from an input beside its tensors: the metadata of a
// Fisher or Gram file, an adapter's configuration. Empty where there is none.
std::string settings_hash(const Checkpoint& input);

inline constexpr const char* kProvenanceFile = "merganser.json";

} // namespace merganser
