#include "merganser/base/quote.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

namespace merganser {

std::string quote(std::string_view text) {
  constexpr size_t kLongest = 120;
  size_t end = text.size();
  if (end > kLongest) {
    end = kLongest;
    while (end > 0 && (text[end] & 0xc0) == 0x80) {
      --end; // not in the middle of a UTF-8 character
    }
  }
  std::string result = "'";
  for (const char c : text.substr(0, end)) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte == 0x7f) {
      result += fmt::format("\\x{:02x}", byte);
    } else {
      result += c;
    }
  }
  return result + (end < text.size() ? "...'" : "'");
}

std::string list_some(const std::vector<std::string>& names) {
  constexpr size_t kMax = 5;
  const size_t shown = std::min(names.size(), kMax);
  std::string text =
      fmt::format("{}", fmt::join(names.begin(), names.begin() + shown, ", "));
  if (shown < names.size()) {
    text += fmt::format(" and {} more", names.size() - shown);
  }
  return text;
}

} // namespace merganser
