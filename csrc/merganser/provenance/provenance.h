#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "merganser/base/api.h"
#include "merganser/io/checkpoint.h"

namespace merganser {

// Origin of a merged model, stored next to it in merganser.json. Content hashes
// as in io/content_hash.h.
struct MERGANSER_API Provenance {
  struct Input {
    std::filesystem::path path; // as resolved from the recipe
    std::filesystem::path from_output; // the same, relative to the output
    std::string content_hash;
    std::string settings_hash; // see below
  };

  std::string version; // Merganser's
  std::string identity; // of the merge; see merge_identity
  std::string method;
  std::string output; // of a sweep ("weight=0.2"), otherwise empty
  std::string recipe; // text
  std::string recipe_hash; // xxh3-128 of the text
  std::vector<Input> inputs;
  std::string content_hash; // of the merged model
  int64_t clamped = 0; // as in MergeReport
  double largest_weight = 0; // likewise
  int64_t nonfinite = 0;

  std::string to_json() const;
  void write(const std::filesystem::path& folder) const;
  // Returns nothing if the directory has no such file; throws InputError if the
  // file is damaged.
  static std::optional<Provenance> read(const std::filesystem::path& folder);
};

// Returns a hash of what a merge uses of an input besides its tensors: the
// metadata of a Fisher or Gram file, the configuration of an adapter. Empty if
// there is nothing.
MERGANSER_API std::string settings_hash(const Checkpoint& input);

inline constexpr const char* kProvenanceFile = "merganser.json";

} // namespace merganser
