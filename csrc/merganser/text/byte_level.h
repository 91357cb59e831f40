#pragma once

#include <array>
#include <cstddef>
#include <string>
#include <string_view>

namespace merganser {

// GPT-2's map of bytes to printable characters, for vocabularies in text files:
// entry b is the UTF-8 of the character for byte b.
const std::array<std::string, 256>& byte_characters();

// The length of the first word of a text that is not empty, by GPT-2's pattern
//   's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
// whose matches cover any text without a gap.
size_t byte_level_word(std::string_view text);

} // namespace merganser
