#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "merganser/merge/chunk_reader.h"
#include "merganser/merge/merge_elements.h"
#include "merganser/merge/tensor_statistics.h"

namespace merganser {

struct MergedChunk {
  int64_t clamped = 0; // as in MergeFindings
  double largest_weight = 0; // likewise
  int64_t nonfinite = 0; // elements of the result; 0 if they are refused
};

// Merges chunks of tensors in arithmetic of Compute, float or double: reads,
// hashes and converts the chunk of every source, applies the formula and rounds
// once. One per thread: it owns the buffers.
template <typename Compute>
class ChunkMerger {
 public:
  // fisher_means: by TensorSource::input, where a tensor's parameters ask for
  // normalize_fishers; may be empty otherwise.
  ChunkMerger(std::span<const double> fisher_means, bool allow_nonfinite)
      : fisher_means_(fisher_means), allow_nonfinite_(allow_nonfinite) {}

  // Reads a chunk of all sources and sets `digests`, one per source.
  void read(
      const TensorPlan& tensor,
      const Chunk& chunk,
      std::span<Digest> digests);

  // Merges the chunk that was read into `out`, with the parameters of one of
  // the outputs and, if the method needs them, the tensor's statistics. Throws
  // InputError naming file, tensor and index for a negative Fisher and, unless
  // allowed, for a value that is not finite or a result that the output's type
  // cannot represent.
  MergedChunk merge(
      const TensorPlan& tensor,
      const Chunk& chunk,
      size_t output,
      const TensorStatistics* statistics,
      std::span<std::byte> out);

  // Size of its buffers in bytes, with the result in an output of another type.
  static constexpr uint64_t memory(size_t sources, size_t task_vectors) {
    return ChunkReader<Compute>::memory(sources + task_vectors) +
        kChunkElements * sizeof(Compute);
  }

 private:
  void set_scalars(
      const TensorPlan& tensor,
      size_t output,
      const TensorStatistics* statistics);
  Compute fisher_scale(
      const TensorPlan& tensor,
      size_t source,
      double num_examples,
      double factor) const;
  bool sparsify_models(
      const TensorPlan& tensor,
      const Chunk& chunk,
      size_t output,
      const TensorStatistics& statistics);
  template <typename Stored>
  MergeArrays<Compute, Stored> arrays(
      const TensorPlan& tensor,
      std::vector<const Stored*>& parameters,
      Stored* out);
  MergeFindings<Compute> calculate(
      const TensorPlan& tensor,
      const Chunk& chunk,
      size_t output,
      const TensorStatistics* statistics);
  bool merge_stored(
      const TensorPlan& tensor,
      const Chunk& chunk,
      std::span<std::byte> out,
      MergedChunk& merged);
  template <typename Value>
  MergeFindings<Compute> take_merged(const Chunk& chunk, const Value& value)
      const;
  void check_inputs(const TensorPlan& tensor, const Chunk& chunk);
  void check_scaled_fishers(const TensorPlan& tensor, const Chunk& chunk);
  int64_t check_result(const TensorPlan& tensor, const Chunk& chunk) const;

  const std::span<const double> fisher_means_;
  const bool allow_nonfinite_;
  ChunkReader<Compute> reader_;
  std::vector<Compute> weights_;
  std::vector<Compute> scales_;
  std::vector<Compute> rhos_;
  bool normalize_fishers_ = false;
  MergeScalars<Compute> scalars_;
  std::vector<std::vector<Compute>> task_vectors_; // sparsified, per model
  std::vector<const Compute*> parameters_;
  std::vector<const BFloat16*> stored_parameters_;
  std::vector<const Compute*> fishers_;
  bool as_stored_ = false; // the parameters that were read are BFloat16
  std::vector<Compute> result_; // where the output is of another type
  Compute* merged_ = nullptr; // result_, or the output itself
};

} // namespace merganser
