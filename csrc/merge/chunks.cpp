#include "merge/chunks.h"

#include <algorithm>

namespace merganser {

ChunkList::ChunkList(const MergePlan& plan, std::vector<size_t> tensors)
    : plan_(plan), tensors_(std::move(tensors)) {
  int64_t end = 0;
  for (const size_t tensor : tensors_) {
    end += std::max<int64_t>(1, hash_blocks(plan.tensors[tensor].output));
    ends_.push_back(end);
  }
}

Chunk ChunkList::operator[](int64_t i) const {
  const auto end = std::ranges::upper_bound(ends_, i);
  const size_t place = end - ends_.begin();
  const int64_t first = place == 0 ? 0 : ends_[place - 1];
  Chunk chunk;
  chunk.tensor = tensors_[place];
  chunk.index = i - first;
  chunk.count = *end - first;
  chunk.begin = chunk.index * kChunkElements;
  chunk.n = std::min(
      kChunkElements, plan_.tensors[chunk.tensor].output.numel() - chunk.begin);
  return chunk;
}

} // namespace merganser
