#include "merganser/merge/chunks.h"

#include <algorithm>

namespace merganser {

ChunkList::ChunkList(
    const MergePlan& plan,
    std::vector<size_t> tensors,
    int64_t elements)
    : plan_(plan), tensors_(std::move(tensors)), elements_(elements) {
  int64_t end = 0;
  for (const size_t tensor : tensors_) {
    const int64_t numel = plan.tensors[tensor].output.numel();
    end += std::max<int64_t>(1, (numel + elements_ - 1) / elements_);
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
  chunk.begin = chunk.index * elements_;
  chunk.n = std::min(
      elements_, plan_.tensors[chunk.tensor].output.numel() - chunk.begin);
  return chunk;
}

} // namespace merganser
