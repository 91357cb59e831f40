#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "merganser/text/unicode_tables.h"

// Properties of code points as in the `tokenizers` package;
// scripts/make_unicode_tables.py says why no Unicode library can replace them.
namespace merganser::unicode {

enum Property : uint16_t {
  kSpace = 1 << 0, // White_Space
  kRemove = 1 << 1, // control and format characters, U+0000, U+FFFD
  kPunctuate = 1 << 2, // P*, and ASCII's symbols
  kNonspacingMark = 1 << 3, // Mn
  kLetter = 1 << 4, // L*
  kNumber = 1 << 5, // N*
  kWordCharacter = 1 << 6, // \w
  kChinese = 1 << 7, // CJK ideographs, by BERT's definition
  kHasLower = 1 << 8,
  kDecomposes = 1 << 9, // NFD changes it
  kCombines = 1 << 10, // a combining class other than 0
};

// Indexed by code point.
const std::vector<uint16_t>& properties();

// The text without the white space at its end.
std::string_view trim_end(std::string_view text);

// Appends the lower case of `c`, without context; one code point, except for
// U+0130.
void append_lower(std::string& text, char32_t c);

// The full canonical decomposition of a code point with kDecomposes.
std::u32string decompose(char32_t c);

// The combining class; 0 without kCombines.
uint8_t combining_class(char32_t c);

} // namespace merganser::unicode
