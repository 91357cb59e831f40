#include "merganser/text/unicode.h"

#include <algorithm>

#include "merganser/base/utf8.h"

namespace merganser::unicode {
namespace {

// The "Chinese characters" of BERT's code: blocks, not a Unicode property.
constexpr Range kChineseBlocks[] = {
    {0x4E00, 0x9FFF},
    {0x3400, 0x4DBF},
    {0x20000, 0x2A6DF},
    {0x2A700, 0x2B73F},
    {0x2B740, 0x2B81F},
    {0x2B920, 0x2CEAF},
    {0xF900, 0xFAFF},
    {0x2F800, 0x2FA1F}};

constexpr char32_t kDottedI = 0x130; // lower case: i and a combining dot

// Hangul syllables decompose by a rule (the Unicode Standard, 3.12).
constexpr Range kHangul = {0xAC00, 0xD7A3};
constexpr char32_t kLead = 0x1100;
constexpr char32_t kVowel = 0x1161;
constexpr char32_t kTail = 0x11A7;
constexpr char32_t kVowels = 21;
constexpr char32_t kTails = 28;

template <typename Ranges>
void mark(
    std::vector<uint16_t>& table,
    const Ranges& ranges,
    Property property) {
  for (const auto& range : ranges) {
    for (char32_t c = range.first; c <= range.last; ++c) {
      table[c] |= property;
    }
  }
}

std::vector<uint16_t> make_properties() {
  std::vector<uint16_t> table(0x110000);
  mark(table, kSpaces, kSpace);
  mark(table, kRemoved, kRemove);
  mark(table, kPunctuation, kPunctuate);
  mark(table, kNonspacing, kNonspacingMark);
  mark(table, kLetters, kLetter);
  mark(table, kNumbers, kNumber);
  mark(table, kWordCharacters, kWordCharacter);
  mark(table, kChineseBlocks, kChinese);
  mark(table, kLowerCases, kHasLower);
  table[kDottedI] |= kHasLower;
  mark(table, std::span(&kHangul, 1), kDecomposes);
  for (const Decomposition& decomposition : kDecompositions) {
    table[decomposition.from] |= kDecomposes;
  }
  mark(table, kCombiningClasses, kCombines);
  return table;
}

// The range that contains `c`, or nullptr.
template <typename T>
const T* find(std::span<const T> ranges, char32_t c) {
  const auto after = std::upper_bound(
      ranges.begin(), ranges.end(), c, [](char32_t value, const T& range) {
        return value < range.first;
      });
  return after != ranges.begin() && c <= after[-1].last ? &after[-1] : nullptr;
}

} // namespace

const std::vector<uint16_t>& properties() {
  static const std::vector<uint16_t> table = make_properties();
  return table;
}

std::string_view trim_end(std::string_view text) {
  while (!text.empty()) {
    size_t last = text.size() - 1;
    while (!begins_code_point(text[last])) {
      --last;
    }
    size_t at = last;
    if (!(properties()[next_code_point(text, at)] & kSpace)) {
      break;
    }
    text = text.substr(0, last);
  }
  return text;
}

void append_lower(std::string& text, char32_t c) {
  if (c == kDottedI) {
    text += "i\u0307";
    return;
  }
  const LowerRange* range = find(kLowerCases, c);
  append_utf8(text, range ? c + static_cast<char32_t>(range->offset) : c);
}

std::u32string decompose(char32_t c) {
  if (c >= kHangul.first && c <= kHangul.last) {
    const char32_t index = c - kHangul.first;
    std::u32string jamo = {
        kLead + index / (kVowels * kTails), kVowel + index / kTails % kVowels};
    if (index % kTails != 0) {
      jamo += kTail + index % kTails;
    }
    return jamo;
  }
  const auto found = std::lower_bound(
      kDecompositions.begin(),
      kDecompositions.end(),
      c,
      [](const Decomposition& decomposition, char32_t value) {
        return decomposition.from < value;
      });
  const std::u32string_view padded(found->to, std::size(found->to));
  return std::u32string(padded.substr(0, padded.find(U'\0')));
}

uint8_t combining_class(char32_t c) {
  const ClassRange* range = find(kCombiningClasses, c);
  return range ? range->combining_class : 0;
}

} // namespace merganser::unicode
