#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "merganser/base/api.h"

namespace merganser {

// True for files with weights, in any format, and for their indices.
bool is_weights_file(const std::filesystem::path& file);

// A Hugging Face model directory: config.json, weights, and the files of its
// tokenizer or processor.
// Throws InputError if `path` is not a directory or has no config.json.
class MERGANSER_API ModelDir {
 public:
  explicit ModelDir(std::filesystem::path path);

  const std::filesystem::path& path() const {
    return path_;
  }
  // The text of config.json.
  const std::string& config_text() const {
    return config_text_;
  }
  // The files that a copy of the model needs next to its config.json and
  // weights, relative to path(), sorted: every file except weights, leftovers
  // of training, README and hidden files, with additional_chat_templates and
  // the directories that modules.json of sentence-transformers names, without
  // the weights there that a Checkpoint reads. Throws InputError for a link to
  // nothing.
  std::vector<std::filesystem::path> companions() const;

  // Copies config.json and the companions into another directory.
  void copy_without_weights(const std::filesystem::path& to) const;

 private:
  std::filesystem::path path_;
  std::string config_text_;
};

} // namespace merganser
