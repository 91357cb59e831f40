#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "merganser/text/unicode_tables.h"

// Properties of code points as the `tokenizers` package has them: see
// scripts/make_unicode_tables.py for why no Unicode library will do.
namespace merganser::unicode {

enum Property : uint16_t {
  kSpace = 1 << 0, // White_Space
  kRemove = 1 << 1, // control and format characters, U+0000, U+FFFD
  kPunctuate = 1 << 2, // P*, and ASCII's symbols
  kNonspacingMark = 1 << 3, // Mn
  kLetter = 1 << 4, // L*
  kNumber = 1 << 5, // N*
  kWordCharacter = 1 << 6, // \w
  kChinese = 1 << 7, // CJK ideographs, as BERT has them
  kHasLower = 1 << 8,
  kDecomposes = 1 << 9, // NFD changes it
  kCombines = 1 << 10, // a combining class other than 0
};

// Indexed by code point.
const std::vector<uint16_t>& properties();

// The text without the white space at its end.
std::string_view trim_end(std::string_view text);

// Its own lower case, without context; one code point, but for U+0130.
void append_lower(std::string& text, char32_t c);

// The full canonical decomposition of a code point that kDecomposes.
std::u32string decompose(char32_t c);

// 0 unless kCombines.
uint8_t combining_class(char32_t c);

} // namespace merganser::unicode
