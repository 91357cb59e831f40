#pragma once

#include <algorithm>
#include <cstdint>

namespace merganser::kernels {

// Blocks of a kernel in which each processes the items of its own index. The x
// dimension of a grid is limited to 2^31 - 1, y to 65535; a larger launch
// fails.
inline unsigned block_for_each(int64_t items, int64_t per_block) {
  return static_cast<unsigned>((items + per_block - 1) / per_block);
}

// Blocks of a kernel with a grid-stride loop: a count that x, y and z of a grid
// all allow, and enough to fill any device several times.
inline unsigned block_count(int64_t items, int64_t per_block) {
  return block_for_each(std::min(items, 65535 * per_block), per_block);
}

} // namespace merganser::kernels
