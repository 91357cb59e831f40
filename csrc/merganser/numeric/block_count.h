#pragma once

#include <algorithm>
#include <cstdint>

namespace merganser::kernels {

// For kernels whose blocks own what they are numbered by. x of a grid may be up
// to 2^31 - 1, y up to 65535; a launch with more is refused.
inline unsigned block_for_each(int64_t items, int64_t per_block) {
  return static_cast<unsigned>((items + per_block - 1) / per_block);
}

// For kernels whose blocks go on a whole grid further: as many as x, y and z of
// a grid can be, and enough to fill any device several times.
inline unsigned block_count(int64_t items, int64_t per_block) {
  return block_for_each(std::min(items, 65535 * per_block), per_block);
}

} // namespace merganser::kernels
