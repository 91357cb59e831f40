#include "merganser/base/utf8.h"

#include <optional>
#include <string>

#include <gtest/gtest.h>

namespace merganser {
namespace {

TEST(Utf8, TakesEveryCodePointThereAndBack) {
  std::string text;
  for (char32_t c = 0; c < 0x110000; ++c) {
    if (c >= 0xD800 && c < 0xE000) {
      continue;
    }
    text.clear();
    append_utf8(text, c);
    EXPECT_EQ(find_ill_formed_utf8(text), std::nullopt);
    size_t at = 0;
    EXPECT_EQ(next_code_point(text, at), c);
    EXPECT_EQ(at, text.size());
  }
}

struct IllFormed {
  std::string bytes;
  const char* what;
};

TEST(Utf8, FindsWhatIsIllFormed) {
  const IllFormed cases[] = {
      {"\x80", "a tail byte alone"},
      {"\xC3", "a lead byte at the end"},
      {"\xC3z", "a lead byte before ASCII"},
      {"\xC0\xAF", "two bytes for one, C0"},
      {"\xC1\xBF", "two bytes for one, C1"},
      {"\xE0\x9F\xBF", "three bytes for two"},
      {"\xE2\x82", "two of three bytes"},
      {"\xED\xA0\x80", "a high surrogate"},
      {"\xED\xBF\xBF", "a low surrogate"},
      {"\xF0\x8F\xBF\xBF", "four bytes for three"},
      {"\xF0\x9F\x98", "three of four bytes"},
      {"\xF4\x90\x80\x80", "above 10FFFF"},
      {"\xF5\x80\x80\x80", "a lead byte that never is"},
      {"\xFF", "a byte that never is"},
  };
  for (const auto& [bytes, what] : cases) {
    // Places before, in and after the blocks of eight that are checked
    // together.
    for (const size_t before : {0, 1, 7, 8, 9, 16}) {
      for (const size_t after : {0, 1, 8, 20}) {
        const std::string text =
            std::string(before, 'a') + bytes + std::string(after, 'b');
        EXPECT_EQ(find_ill_formed_utf8(text), before) << what;
      }
    }
  }
}

} // namespace
} // namespace merganser
