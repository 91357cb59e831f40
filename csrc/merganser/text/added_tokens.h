#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace merganser {

// A token that is searched for in the text before the subword model runs, with
// the flags of tokenizer.json.
struct AddedToken {
  std::string content;
  int32_t id = 0;
  bool single_word = false; // only where no word continues on either side
  bool lstrip = false; // includes the white space before it
  bool rstrip = false; // includes the white space after it
  bool normalized = true; // searched for in the normalized text
};

// Finds one set of added tokens: from the left, the longest at each place.
class AddedTokens {
 public:
  struct Piece {
    std::string_view text;
    const AddedToken* token =
        nullptr; // nullptr: text between tokens, not empty
  };

  explicit AddedTokens(std::vector<AddedToken> tokens);

  std::vector<Piece> split(std::string_view text) const;

 private:
  const AddedToken* longest_at(std::string_view text) const;

  std::vector<AddedToken> tokens_; // by first byte, then longest first
  std::array<std::pair<size_t, size_t>, 256> by_first_byte_;
};

} // namespace merganser
