#pragma once

#include <cstdint>
#include <span>

// The data of unicode.h, written by scripts/make_unicode_tables.py.
namespace merganser::unicode {

struct Range {
  char32_t first;
  char32_t last;
};

struct ClassRange {
  char32_t first;
  char32_t last;
  uint8_t combining_class;
};

struct LowerRange {
  char32_t first;
  char32_t last;
  int32_t offset; // from a code point to its lower case
};

struct Decomposition {
  char32_t from;
  char32_t to[4]; // ends at the first 0
};

extern const std::span<const Range> kSpaces;
extern const std::span<const Range> kRemoved; // by BERT's text clean-up
extern const std::span<const Range> kPunctuation;
extern const std::span<const Range> kNonspacing;
extern const std::span<const Range> kLetters;
extern const std::span<const Range> kNumbers;
extern const std::span<const Range> kWordCharacters;
extern const std::span<const ClassRange> kCombiningClasses;
extern const std::span<const LowerRange> kLowerCases;
extern const std::span<const Decomposition> kDecompositions; // sorted, full

} // namespace merganser::unicode
