#pragma once

#include <vector>

#include "io/checkpoint.h"
#include "merge/elementwise.h"
#include "merge/plan.h"

namespace merganser {

// Merges parts of tensors as a plan says, in arithmetic of T: reads the part
// from every source, checks and converts it, applies the formula, rounds once
// and hands the bytes on. One per thread: it owns the buffers.
template <typename T>
class TensorMerger {
 public:
  explicit TensorMerger(const MergePlan& plan);

  // Elements [begin, begin + n), n <= kChunkElements. The bytes are valid until
  // the next call. Throws InputError naming file, tensor and index for a value
  // that is not finite, a negative Fisher, or a result that its type cannot
  // hold. Adds the number of clamped denominators to `clamped`.
  std::span<const std::byte> merge(
      const TensorInfo& output,
      int64_t begin,
      int64_t n,
      int64_t& clamped);

 private:
  void load(
      const Checkpoint& source,
      const std::string& name,
      int64_t begin,
      int64_t n,
      bool fisher,
      std::vector<T>& values);

  const MergePlan& plan_;
  std::vector<T> weights_;
  std::vector<T> scales_;
  MergeScalars<T> scalars_;
  std::vector<T> base_;
  std::vector<T> base_fisher_;
  std::vector<std::vector<T>> models_;
  std::vector<std::vector<T>> fishers_;
  std::vector<const T*> model_pointers_;
  std::vector<const T*> fisher_pointers_;
  std::vector<T> result_;
  std::vector<std::byte> bytes_; // of a source or of the result
};

} // namespace merganser
