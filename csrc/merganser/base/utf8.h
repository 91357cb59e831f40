#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

#include "merganser/base/api.h"

namespace merganser {

// The offset of the first byte that is not well-formed UTF-8.
MERGANSER_API std::optional<size_t> find_ill_formed_utf8(std::string_view text);

// The code point at `at` of well-formed UTF-8; moves `at` past it.
inline char32_t next_code_point(std::string_view text, size_t& at) {
  const auto byte = [&] { return static_cast<unsigned char>(text[at++]); };
  const char32_t lead = byte();
  if (lead < 0x80) {
    return lead;
  }
  char32_t c = lead & (lead < 0xE0 ? 0x1F : lead < 0xF0 ? 0x0F : 0x07);
  for (int more = lead < 0xE0 ? 1 : lead < 0xF0 ? 2 : 3; more > 0; --more) {
    c = c << 6 | (byte() & 0x3F);
  }
  return c;
}

inline void append_utf8(std::string& text, char32_t c) {
  const auto tail = [&](int shift) {
    text.push_back(static_cast<char>(0x80 | (c >> shift & 0x3F)));
  };
  if (c < 0x80) {
    text.push_back(static_cast<char>(c));
  } else if (c < 0x800) {
    text.push_back(static_cast<char>(0xC0 | c >> 6));
    tail(0);
  } else if (c < 0x10000) {
    text.push_back(static_cast<char>(0xE0 | c >> 12));
    tail(6);
    tail(0);
  } else {
    text.push_back(static_cast<char>(0xF0 | c >> 18));
    tail(12);
    tail(6);
    tail(0);
  }
}

// True for the first byte of a code point in well-formed UTF-8.
inline bool begins_code_point(char byte) {
  return (byte & 0xC0) != 0x80;
}

} // namespace merganser
