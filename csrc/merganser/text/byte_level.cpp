#include "merganser/text/byte_level.h"

#include "merganser/base/utf8.h"
#include "merganser/text/unicode.h"

namespace merganser {
namespace {

constexpr std::string_view kContractions[] =
    {"'s", "'t", "'re", "'ve", "'m", "'ll", "'d"};

constexpr unsigned kClasses =
    unicode::kLetter | unicode::kNumber | unicode::kSpace;

std::array<std::string, 256> make_byte_characters() {
  std::array<std::string, 256> characters;
  char32_t substitute = 0x100;
  for (char32_t byte = 0; byte < 256; ++byte) {
    const bool printable = (byte >= '!' && byte <= '~') ||
        (byte >= 0xA1 && byte <= 0xFF && byte != 0xAD); // soft hyphen
    append_utf8(characters[byte], printable ? byte : substitute++);
  }
  return characters;
}

} // namespace

const std::array<std::string, 256>& byte_characters() {
  static const std::array<std::string, 256> characters = make_byte_characters();
  return characters;
}

size_t byte_level_word(std::string_view text) {
  const std::vector<uint16_t>& properties = unicode::properties();
  for (const std::string_view contraction : kContractions) {
    if (text.starts_with(contraction)) {
      return contraction.size();
    }
  }
  // The first character decides, or the second after one space.
  size_t begin = text.size() > 1 && text.front() == ' ' ? 1 : 0;
  const auto class_at = [&](size_t& at) {
    return properties[next_code_point(text, at)] & kClasses;
  };
  size_t at = begin;
  unsigned kind = class_at(at);
  if (kind == unicode::kSpace && begin == 1) {
    begin = at = 0;
    kind = class_at(at);
  }
  size_t last = begin; // start of the last character of the run
  size_t end = at;
  while (at < text.size() && class_at(at) == kind) {
    last = end;
    end = at;
  }
  // The last of several white space characters belongs to the next word, if
  // there is one.
  return kind == unicode::kSpace && end < text.size() && last > 0 ? last : end;
}

} // namespace merganser
