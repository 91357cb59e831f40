#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "merganser/text/encoding.h"

namespace merganser {

// One piece of a tokenized example: a text's tokens, or special tokens.
struct TemplatePiece {
  int text = kSpecial; // 0: the text, 1: the second text
  std::vector<int32_t> ids; // special tokens
  int32_t type = 0; // token type of the piece

  static constexpr int kSpecial = -1;
};
using Template = std::vector<TemplatePiece>;

// Special tokens around a text, or two texts. In a single text all token types
// are 0.
struct PostProcessor {
  Template single;
  Template pair;
};

// Number of special tokens.
size_t count_special(const Template& pieces);

// The ids and token types of texts in a template.
Encoding assemble(
    const Template& pieces,
    const std::vector<std::vector<int32_t>>& texts);

} // namespace merganser
