#include "text/utf8.h"

#include <utf8proc.h>

namespace merganser {

std::optional<size_t> find_ill_formed_utf8(std::string_view text) {
  const auto* bytes = reinterpret_cast<const utf8proc_uint8_t*>(text.data());
  size_t at = 0;
  while (at < text.size()) {
    if (bytes[at] < 0x80) {
      ++at;
      continue;
    }
    utf8proc_int32_t code_point;
    const utf8proc_ssize_t length = utf8proc_iterate(
        bytes + at,
        static_cast<utf8proc_ssize_t>(text.size() - at),
        &code_point);
    if (length < 0) {
      return at;
    }
    at += static_cast<size_t>(length);
  }
  return std::nullopt;
}

} // namespace merganser
