#pragma once

#include <vector>

#include "merge/chunks.h"
#include "merge/elementwise.h"
#include "merge/plan.h"

namespace merganser {

struct MergedChunk {
  std::span<const std::byte> bytes; // in the output
  int64_t clamped = 0; // elements whose denominator was clamped
  int64_t nonfinite = 0; // elements of the result; 0 where they are refused
};

// Merges chunks of tensors as a plan says, in arithmetic of T: reads the chunk
// from every source, hashes, converts and checks it, applies the formula and
// rounds once. One per thread: it owns the buffers.
template <typename T>
class ChunkMerger {
 public:
  ChunkMerger(const MergePlan& plan, bool allow_nonfinite);

  // Valid until the next call. `digests` is set to what was read, one per
  // source. Throws InputError naming file, tensor and index for a negative
  // Fisher and, unless they are allowed, for a value that is not finite or a
  // result that its type cannot hold.
  MergedChunk merge(
      const TensorPlan& tensor,
      const Chunk& chunk,
      std::span<Digest> digests);

  // Of its buffers.
  static constexpr uint64_t memory(size_t sources) {
    return kChunkElements * ((sources + 1) * sizeof(T) + sizeof(double));
  }

 private:
  void read(const StoredTensor& source, const Chunk& chunk, T* to, Digest&);
  void check_inputs(const TensorPlan& tensor, const Chunk& chunk) const;
  int64_t check_result(const TensorPlan& tensor, const Chunk& chunk) const;

  const MergePlan& plan_;
  const bool allow_nonfinite_;
  std::vector<MergeSource> sources_;
  std::vector<T> weights_;
  std::vector<T> scales_;
  MergeScalars<T> scalars_;
  std::vector<std::vector<T>> values_; // of the sources
  std::vector<const T*> pointers_; // to them
  MergeArrays<T> arrays_;
  std::vector<T> result_;
  std::vector<std::byte> bytes_; // of a source or of the result
};

} // namespace merganser
