#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "merganser/base/api.h"
#include "merganser/text/tokenizer.h"

namespace merganser {

struct TextExample {
  std::string text;
  int64_t label = 0;
  int64_t line = 0; // in its file, from 1
  std::optional<std::string> text_pair = {}; // a second text
};

// Label names and their class numbers.
using LabelNames = std::map<std::string, int64_t>;

// Ignored labels may be missing and are 0.
enum class Labels { kRequired, kIgnored };

// Reads .jsonl ("text" and "label" in every object) or .csv / .tsv (a header
// line with columns text and label; RFC 4180 quoting). Pairs of texts have the
// keys text and text_pair, or two of GLUE's: sentence1 and sentence2, premise
// and hypothesis, question1 and question2, question and sentence. A label is a
// class number, from 0 (1.0 counts as 1), or one of `names`. Throws InputError
// naming file and line: not UTF-8, not JSON, a column or key that is missing, a
// second text that would not be used, another label, a .csv label that is a
// name and the number of another class, no examples at all, an unknown file
// name ending.
MERGANSER_API std::vector<TextExample> read_examples(
    const std::filesystem::path& path,
    const LabelNames& names = {},
    Labels labels = Labels::kRequired);

// Tokenized examples, in file order; an example's index is its position.
struct MERGANSER_API Dataset {
  std::filesystem::path path;
  std::vector<std::vector<int32_t>> ids;
  std::vector<int64_t> labels;
  // Token types of each example; both levels may be empty: all 0.
  std::vector<std::vector<int32_t>> token_types = {};

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
    int64_t num_labels,
    const LabelNames& names = {},
    Labels labels = Labels::kRequired);

// Adds the examples of `part` after those of `all`.
MERGANSER_API void append(Dataset& all, Dataset part);

} // namespace merganser
