#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace merganser {

// A token that is found in the text before the model sees it, with the flags of
// tokenizer.json.
struct AddedToken {
  std::string content;
  int32_t id = 0;
  bool single_word = false; // not where a word goes on at either side
  bool lstrip = false; // takes the white space before it
  bool rstrip = false; // takes the white space behind it
  bool normalized = true; // looked for in the normalised text
};

// Finds one set of added tokens: from the left, the longest at each place.
class AddedTokens {
 public:
  struct Piece {
    std::string_view text;
    const AddedToken* token = nullptr; // none: text between tokens, not empty
  };

  explicit AddedTokens(std::vector<AddedToken> tokens);

  std::vector<Piece> split(std::string_view text) const;

 private:
  const AddedToken* longest_at(std::string_view text) const;

  std::vector<AddedToken> tokens_; // by first byte, then longest first
  std::array<std::pair<size_t, size_t>, 256> by_first_byte_;
};

} // namespace merganser
