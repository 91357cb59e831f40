#include "merganser/io/model_dir.h"

#include <utility>

#include <fmt/format.h>

#include "merganser/base/error.h"
#include "merganser/io/atomic_file.h"

namespace fs = std::filesystem;

namespace merganser {

namespace {

constexpr const char* kTokenizerFiles[] = {
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
    "chat_template.jinja",
};

} // namespace

ModelDir::ModelDir(fs::path path) : path_(std::move(path)) {
  if (!fs::is_directory(path_)) {
    throw InputError(fmt::format(
        "{}: is not a directory; expected a Hugging Face model directory with "
        "config.json and weights",
        path_.string()));
  }
  const fs::path config = path_ / "config.json";
  if (!fs::exists(config)) {
    throw InputError(fmt::format(
        "{}: has no config.json; is it a Hugging Face model directory?",
        path_.string()));
  }
  config_text_ = read_file(config);
}

std::vector<fs::path> ModelDir::tokenizer_files() const {
  std::vector<fs::path> files;
  for (const char* name : kTokenizerFiles) {
    if (fs::exists(path_ / name)) {
      files.push_back(path_ / name);
    }
  }
  return files;
}

void ModelDir::copy_without_weights(const fs::path& to) const {
  write_file(to / "config.json", config_text_);
  std::vector<fs::path> files = tokenizer_files();
  if (const fs::path generation = path_ / "generation_config.json";
      fs::exists(generation)) {
    files.push_back(generation);
  }
  for (const fs::path& file : files) {
    write_file(to / file.filename(), read_file(file));
  }
}

} // namespace merganser
