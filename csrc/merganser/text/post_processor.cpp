#include "merganser/text/post_processor.h"

#include <algorithm>

namespace merganser {

size_t count_special(const Template& pieces) {
  size_t count = 0;
  for (const TemplatePiece& piece : pieces) {
    count += piece.ids.size();
  }
  return count;
}

Encoding assemble(
    const Template& pieces,
    const std::vector<std::vector<int32_t>>& texts) {
  Encoding result;
  for (const TemplatePiece& piece : pieces) {
    const std::vector<int32_t>& ids =
        piece.text == TemplatePiece::kSpecial ? piece.ids : texts[piece.text];
    result.ids.insert(result.ids.end(), ids.begin(), ids.end());
    result.token_types.resize(result.ids.size(), piece.type);
  }
  if (std::ranges::all_of(
          result.token_types, [](int32_t t) { return t == 0; })) {
    result.token_types.clear();
  }
  return result;
}

} // namespace merganser
