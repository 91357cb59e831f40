#include "merganser/base/utf8.h"

#include <cstdint>
#include <cstring>

namespace merganser {
namespace {

constexpr uint64_t kHighBits = 0x8080808080808080;

// The length of the well-formed sequence at the start of `text`, or 0.
// Source: table 3-7 of the Unicode Standard.
size_t sequence_length(std::string_view text) {
  const auto at = [&](size_t i) {
    return i < text.size() ? static_cast<unsigned char>(text[i]) : 0;
  };
  const auto is_tail = [&](size_t i, int low = 0x80, int high = 0xBF) {
    return at(i) >= low && at(i) <= high;
  };
  const int lead = at(0);
  if (lead < 0x80) {
    return 1;
  }
  if (lead >= 0xC2 && lead <= 0xDF) {
    return is_tail(1) ? 2 : 0;
  }
  if (lead >= 0xE0 && lead <= 0xEF) {
    const int low = lead == 0xE0 ? 0xA0 : 0x80; // overlong
    const int high = lead == 0xED ? 0x9F : 0xBF; // surrogates
    return is_tail(1, low, high) && is_tail(2) ? 3 : 0;
  }
  if (lead >= 0xF0 && lead <= 0xF4) {
    const int low = lead == 0xF0 ? 0x90 : 0x80; // overlong
    const int high = lead == 0xF4 ? 0x8F : 0xBF; // above 10FFFF
    return is_tail(1, low, high) && is_tail(2) && is_tail(3) ? 4 : 0;
  }
  return 0;
}

} // namespace

std::optional<size_t> find_ill_formed_utf8(std::string_view text) {
  size_t at = 0;
  while (at < text.size()) {
    uint64_t word = kHighBits;
    if (text.size() - at >= sizeof(word)) {
      std::memcpy(&word, text.data() + at, sizeof(word));
    }
    if ((word & kHighBits) == 0) { // eight ASCII characters
      at += sizeof(word);
      continue;
    }
    const size_t length = sequence_length(text.substr(at));
    if (length == 0) {
      return at;
    }
    at += length;
  }
  return std::nullopt;
}

} // namespace merganser
