#pragma once

#include <cstdint>

#include "merganser/io/content_hash.h"

namespace merganser {

// Elements of a chunk, the unit in which tensors are read and merged: a block
// of the content hash, so that the hash is computed on the way. A chunk of ten
// sources fits into a second-level cache.
inline constexpr int64_t kChunkElements = kHashBlock;

// A part of a tensor.
struct Chunk {
  int64_t index = 0; // position among the tensor's chunks
  int64_t begin = 0; // elements [begin, begin + n)
  int64_t n = 0;
};

// Number of chunks of a tensor; a tensor without elements has one, also
// without elements.
inline int64_t chunk_count(int64_t numel, int64_t size = kChunkElements) {
  return numel == 0 ? 1 : (numel + size - 1) / size;
}

inline Chunk chunk_at(
    int64_t numel,
    int64_t index,
    int64_t size = kChunkElements) {
  const int64_t begin = index * size;
  return {index, begin, begin + size < numel ? size : numel - begin};
}

} // namespace merganser
