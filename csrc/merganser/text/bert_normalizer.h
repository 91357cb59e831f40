#pragma once

#include <string>
#include <string_view>

namespace merganser {

// What BERT does to a text before it looks for words.
struct BertNormalizer {
  bool clean_text; // drop control characters, make all white space ' '
  bool handle_chinese_chars; // a space on both sides of each
  bool strip_accents; // canonical decomposition without nonspacing marks
  bool lowercase;

  void apply(std::string_view text, std::string& out) const;
};

} // namespace merganser
