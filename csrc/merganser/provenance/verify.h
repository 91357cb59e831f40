#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "merganser/base/api.h"
#include "merganser/provenance/provenance.h"

namespace merganser {

// Comparison of a merged model and its inputs with the recorded hashes.
struct MERGANSER_API Verification {
  enum class State { kSame, kChanged, kMissing };
  struct Row {
    std::filesystem::path path;
    State state = State::kSame;
    std::string problem; // if it is missing or cannot be read
    std::string storage = "float32"; // other than that: of Fishers
  };

  Row output;
  std::vector<Row> inputs;

  bool good() const; // true if nothing has changed; inputs may be missing
  std::string to_text() const;
  std::string to_json() const;
};

// Compares content hashes with those in `folder`/merganser.json; reads all
// data. Throws InputError if there is no such file.
MERGANSER_API Verification verify(const std::filesystem::path& folder);

} // namespace merganser
