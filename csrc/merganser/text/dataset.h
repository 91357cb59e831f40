#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "merganser/base/api.h"
#include "merganser/text/tokenizer.h"

namespace merganser {

struct TextExample {
  std::string text;
  int64_t label = 0;
  int64_t line = 0; // in its file, from 1
};

// Reads .jsonl ("text" and "label" in every object) or .csv / .tsv (a header
// line with columns text and label; RFC 4180 quoting). Labels are integers from
// 0. Throws InputError naming file and line: not UTF-8, not JSON, a missing
// column or key, a label that is not a non-negative integer, no examples, an
// unknown file name extension.
MERGANSER_API std::vector<TextExample> read_examples(
    const std::filesystem::path& path);

// Tokenized examples, in file order; an example's index is its position.
struct MERGANSER_API Dataset {
  std::filesystem::path path;
  std::vector<std::vector<int32_t>> ids;
  std::vector<int64_t> labels;

  int64_t size() const {
    return static_cast<int64_t>(labels.size());
  }
};

// Reads a file and tokenizes it with several threads. Throws InputError with
// file and line for a label >= num_labels.
MERGANSER_API Dataset load_dataset(
    const std::filesystem::path& path,
    const Tokenizer& tokenizer,
    int64_t max_length,
    int64_t num_labels);

} // namespace merganser
