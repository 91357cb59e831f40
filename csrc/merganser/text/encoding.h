#pragma once

#include <cstdint>
#include <vector>

namespace merganser {

// A tokenized text or pair of texts.
struct Encoding {
  std::vector<int32_t> ids;
  std::vector<int32_t> token_types; // empty: all 0
};

} // namespace merganser
