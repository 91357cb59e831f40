#pragma once

#include <filesystem>
#include <map>
#include <string>

#include "merganser/base/api.h"

namespace merganser {

// Content hashes of files, cached in a file by (path, size, time of last
// change), so that a second run reads no large file again.
class MERGANSER_API ContentHashes {
 public:
  explicit ContentHashes(std::filesystem::path cache);

  // Hash of a file, or of a model directory's weights, config.json and
  // ModelDir::companions. Throws InputError when it cannot be read.
  std::string of(const std::filesystem::path& path);

  // Writes the cache, if it changed.
  void save();

 private:
  std::string of_file(const std::filesystem::path& path);

  struct Entry {
    std::string state; // size and time
    std::string hash;
  };
  std::filesystem::path cache_;
  std::map<std::string, Entry> entries_; // by absolute path
  bool changed_ = false;
};

} // namespace merganser
