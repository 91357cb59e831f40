#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "merganser/base/api.h"
#include "merganser/text/encoding.h"

namespace merganser {

// Text to token ids, equal to the Hugging Face `tokenizers` package with
// special tokens and truncation. Immutable after construction, safe to use from
// several threads.
class MERGANSER_API Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  // Reads a model directory: tokenizer.json if it exists, else vocab.txt
  // (WordPiece) or vocab.json + merges.txt (byte-level BPE), with
  // tokenizer_config.json if it exists. Throws InputError naming the file and
  // any part of a tokenizer.json that is not supported.
  static std::unique_ptr<Tokenizer> load(const std::filesystem::path& folder);

  // Ids with [CLS] ... [SEP] (BERT) or <s> ... </s> (RoBERTa), at most
  // max_length in all: the end of the text is truncated. Throws InputError for
  // text that is not UTF-8, with the offset, and for a max_length that leaves
  // no room for text.
  virtual std::vector<int32_t> encode(std::string_view text, int64_t max_length)
      const = 0;

  // The ids and token types of two texts in one sequence, such as [CLS] text
  // [SEP] pair [SEP] (BERT) or <s> text </s></s> pair </s> (RoBERTa), at most
  // max_length in all. The longer text is cut first ("longest_first").
  virtual Encoding encode_pair(
      std::string_view text,
      std::string_view pair,
      int64_t max_length) const = 0;

  // One more than the largest id that encode() can give: the minimum
  // number of rows of a model's embedding.
  virtual int64_t vocab_size() const = 0;
  virtual int32_t pad_id() const = 0;
};

// Encodes many texts with `threads` threads (0: one per core). If several fail,
// the first text's error is thrown.
MERGANSER_API std::vector<std::vector<int32_t>> encode_batch(
    const Tokenizer& tokenizer,
    const std::vector<std::string_view>& texts,
    int64_t max_length,
    int threads = 0);

// The same for pairs: text i with pairs[i].
MERGANSER_API std::vector<Encoding> encode_pair_batch(
    const Tokenizer& tokenizer,
    const std::vector<std::string_view>& texts,
    const std::vector<std::string_view>& pairs,
    int64_t max_length,
    int threads = 0);

} // namespace merganser
