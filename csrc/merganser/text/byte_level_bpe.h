#pragma once

#include <array>
#include <optional>

#include "merganser/text/bpe_merges.h"
#include "merganser/text/subword_model.h"
#include "merganser/text/vocabulary.h"

namespace merganser {

// The model of GPT-2 and RoBERTa: splits words by GPT-2's pattern and joins the
// bytes of each, the pair whose merge has the lowest rank first, until no pair
// has a merge.
class ByteLevelBpe : public SubwordModel {
 public:
  struct Options {
    bool add_prefix_space; // to text that does not begin with one
    // The token of bytes without their own; without it they are skipped.
    std::optional<int32_t> unknown_id;
    bool fuse_unknown; // adjacent ones become one unknown token
  };

  ByteLevelBpe(
      const Vocabulary& vocabulary,
      MergeTable merges,
      Options options);

  std::string_view normalize(std::string_view text, std::string& buffer)
      const override;
  void encode(std::string_view text, size_t limit, std::vector<int32_t>& ids)
      const override;

 private:
  std::vector<int32_t> encode_word(std::string_view word) const;

  MergeTable merges_;
  Options options_;
  std::array<std::optional<int32_t>, 256> byte_ids_;
  uint64_t serial_; // separates the words of models in the cache
};

} // namespace merganser
