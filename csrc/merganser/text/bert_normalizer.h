#pragma once

#include <string>
#include <string_view>

namespace merganser {

// BERT's normalization of a text before it is split into words.
struct BertNormalizer {
  bool clean_text; // remove control characters, turn white space into ' '
  bool handle_chinese_chars; // a space on both sides of each
  bool strip_accents; // canonical decomposition without nonspacing marks
  bool lowercase;

  void apply(std::string_view text, std::string& out) const;
};

} // namespace merganser
