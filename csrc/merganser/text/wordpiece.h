#pragma once

#include "merganser/text/bert_normalizer.h"
#include "merganser/text/subword_model.h"
#include "merganser/text/vocabulary.h"

namespace merganser {

// The model of BERT: splits words at white space and makes each punctuation
// character a word. A word becomes the longest token that it begins with, then
// the longest token of its rest that the vocabulary has after "##", and so on.
// A word with a rest without token, or with too many characters, becomes the
// unknown token.
class WordPiece : public SubwordModel {
 public:
  struct Options {
    BertNormalizer normalizer;
    int32_t unknown_id;
    std::string continuing_prefix; // "##"
    size_t max_characters; // per word
  };

  WordPiece(const Vocabulary& vocabulary, Options options);

  std::string_view normalize(std::string_view text, std::string& buffer)
      const override;
  void encode(std::string_view text, size_t limit, std::vector<int32_t>& ids)
      const override;

 private:
  void encode_word(std::string_view word, std::vector<int32_t>& ids) const;

  Options options_;
  Vocabulary beginnings_;
  Vocabulary rests_; // without the prefix
  size_t longest_ = 0; // token, in bytes
};

} // namespace merganser
