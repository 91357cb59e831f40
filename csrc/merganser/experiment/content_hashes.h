#pragma once

#include <filesystem>
#include <map>
#include <string>

namespace merganser {

// Hashes of files' contents, remembered in a file by (path, size, time of last
// change), so that a second run reads nothing large again.
class ContentHashes {
 public:
  explicit ContentHashes(std::filesystem::path memory);

  // A file, or a model directory (config, tokenizer and weights; nothing else
  // in the folder counts). Throws InputError when it cannot be read.
  std::string of(const std::filesystem::path& path);

  // Writes what is remembered, if it changed.
  void save();

 private:
  std::string of_file(const std::filesystem::path& path);

  struct Entry {
    std::string state; // size and time
    std::string hash;
  };
  std::filesystem::path memory_;
  std::map<std::string, Entry> entries_; // by absolute path
  bool changed_ = false;
};

} // namespace merganser
