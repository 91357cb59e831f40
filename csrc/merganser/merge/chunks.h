#pragma once

#include <cstdint>
#include <vector>

#include "merganser/io/content_hash.h"
#include "merganser/plan/plan.h"

namespace merganser {

// A merge goes through the tensors in chunks of so many elements: those that
// the content hash is made of, so that it can be taken on the way. A chunk of
// ten sources fits into a second-level cache.
inline constexpr int64_t kChunkElements = kHashBlock;

// The results of so many elements are written at once: by file systems, writes
// below half a megabyte are carried out at down to half the speed.
inline constexpr int64_t kStripElements = 16 * kChunkElements;

struct Chunk {
  size_t tensor = 0; // in plan.tensors
  int64_t index = 0; // in the tensor
  int64_t count = 0; // of the tensor's chunks
  int64_t begin = 0; // elements [begin, begin + n)
  int64_t n = 0;
};

// The chunks of so many elements of some of a plan's tensors, one tensor after
// the other. A tensor without elements has one chunk without elements.
class ChunkList {
 public:
  ChunkList(
      const MergePlan& plan,
      std::vector<size_t> tensors,
      int64_t elements = kChunkElements);

  int64_t size() const {
    return ends_.empty() ? 0 : ends_.back();
  }
  Chunk operator[](int64_t i) const;

 private:
  const MergePlan& plan_;
  std::vector<size_t> tensors_;
  int64_t elements_;
  std::vector<int64_t> ends_; // of their chunks in the list
};

} // namespace merganser
