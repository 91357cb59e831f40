#pragma once

#include <span>

#include "merganser/merge/chunk_reader.h"

namespace merganser {

// theta - base of a model's elements [begin, begin + out.size()), of a method
// whose first source is the base.
template <typename T>
void read_task_vector(
    const TensorPlan& tensor,
    size_t model,
    int64_t begin,
    std::span<T> out,
    ChunkReader<T>& reader) {
  const TensorSource pair[] = {tensor.sources[0], tensor.sources[1 + model]};
  Chunk part;
  part.begin = begin;
  part.n = std::ssize(out);
  Digest ignored[2];
  reader.read(pair, part, ignored);
  for (int64_t i = 0; i < part.n; ++i) {
    out[i] = reader.values(1)[i] - reader.values(0)[i];
  }
}

} // namespace merganser
