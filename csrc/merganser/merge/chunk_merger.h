#pragma once

#include <vector>

#include "merganser/merge/chunk_reader.h"
#include "merganser/merge/merge_elements.h"
#include "merganser/merge/tensor_statistics.h"

namespace merganser {

struct MergedChunk {
  int64_t clamped = 0; // elements whose denominator was clamped
  int64_t nonfinite = 0; // elements of the result; 0 where they are refused
};

// Merges chunks of tensors as a plan says, in arithmetic of T: reads, hashes
// and converts the chunk of every source, applies the formula and rounds once.
// One per thread: it owns the buffers.
template <typename T>
class ChunkMerger {
 public:
  // fisher_means: where parameters ask for them, see there; else empty.
  ChunkMerger(
      const MergePlan& plan,
      std::span<const double> fisher_means,
      bool allow_nonfinite)
      : plan_(plan),
        fisher_means_(fisher_means),
        allow_nonfinite_(allow_nonfinite) {}

  // Sets `digests` to what was read, one per source.
  void read(
      const TensorPlan& tensor,
      const Chunk& chunk,
      std::span<Digest> digests);

  // Of what was read, for one of the outputs; `out` is set to the merged
  // elements. `statistics`: where the method needs them. Throws InputError
  // naming file, tensor and index for a negative Fisher and, unless they are
  // allowed, for a value that is not finite or a result that its type cannot
  // hold.
  MergedChunk merge(
      const TensorPlan& tensor,
      const Chunk& chunk,
      size_t output,
      const TensorStatistics* statistics,
      std::span<std::byte> out);

  // Of its buffers.
  static constexpr uint64_t memory(size_t sources, size_t task_vectors) {
    // These, and the result where the output is of another type.
    return ChunkReader<T>::memory(sources + task_vectors) +
        kChunkElements * sizeof(T);
  }

 private:
  void set_scalars(
      const TensorPlan& tensor,
      size_t output,
      const TensorStatistics* statistics);
  bool sparsify_models(
      const TensorPlan& tensor,
      const Chunk& chunk,
      size_t output,
      const TensorStatistics& statistics);
  template <typename P>
  MergeArrays<T, P> arrays(
      const TensorPlan& tensor,
      std::vector<const P*>& parameters,
      P* out);
  MergeFindings<T> calculate(
      const TensorPlan& tensor,
      const Chunk& chunk,
      size_t output,
      const TensorStatistics* statistics);
  bool merge_stored(
      const TensorPlan& tensor,
      const Chunk& chunk,
      std::span<std::byte> out,
      int64_t& clamped);
  void normalize_fishers(const TensorPlan& tensor);
  MergeFindings<T> take(const std::vector<double>& merged, const Chunk& chunk)
      const;
  void check_inputs(const TensorPlan& tensor, const Chunk& chunk);
  int64_t check_result(const TensorPlan& tensor, const Chunk& chunk) const;

  const MergePlan& plan_;
  const std::span<const double> fisher_means_;
  const bool allow_nonfinite_;
  ChunkReader<T> reader_;
  std::vector<T> weights_;
  std::vector<T> scales_;
  MergeScalars<T> scalars_;
  std::vector<std::vector<T>> task_vectors_; // sparsified, of the models
  std::vector<const T*> parameters_;
  std::vector<const BFloat16*> stored_parameters_;
  std::vector<const T*> fishers_;
  bool as_stored_ = false; // the parameters that were read are BFloat16
  std::vector<T> result_; // where the output is of another type
  T* merged_ = nullptr; // result_, or the output itself
};

} // namespace merganser
