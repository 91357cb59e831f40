#pragma once

#include <atomic>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "io/checkpoint.h"
#include "io/progress.h"
#include "merge/chunk_merger.h"
#include "merge/finished_tensor.h"
#include "merge/input_hashes.h"
#include "merge/staging.h"

namespace merganser {

// The data of one merge: every chunk is read from its sources, merged and
// written by one of the threads, in whatever order they come; what is finished
// goes into the staging's journal.
class MergeRun {
 public:
  MergeRun(const MergePlan& plan, int threads, bool allow_nonfinite);

  // Writes the weights into the staging's folder.
  void write_weights(
      Staging& staging,
      uint64_t shard_bytes,
      const ProgressCallback& progress);

  // Afterwards:
  std::vector<std::string> input_hashes(); // of plan.inputs()
  const std::vector<Digest>& output_digests() const {
    return output_digests_;
  }
  int64_t clamped() const {
    return clamped_;
  }
  int64_t nonfinite() const {
    return nonfinite_;
  }
  int64_t resumed() const { // tensors that an earlier run finished
    return resumed_;
  }

 private:
  struct Worker {
    std::optional<ChunkMerger<float>> float32;
    std::optional<ChunkMerger<double>> float64;
    std::vector<std::byte> bytes; // of a copied chunk
    std::vector<Digest> digests; // of a chunk's sources and result
  };

  // A tensor that is being merged.
  struct TensorState {
    std::once_flag begun;
    std::vector<Digest> blocks; // (sources and result, chunks)
    std::atomic<int64_t> done = 0; // chunks
    std::atomic<int64_t> clamped = 0;
    std::atomic<int64_t> nonfinite = 0;
  };

  std::vector<size_t> take_up(Staging& staging, CheckpointWriter& writer);
  void take(const FinishedTensor& finished);
  void work(
      const Chunk& chunk,
      Worker& worker,
      CheckpointWriter& writer,
      Staging& staging);
  MergedChunk merge(
      const TensorPlan& tensor,
      const Chunk& chunk,
      Worker& worker) const;
  MergedChunk copy(const TensorPlan& tensor, const Chunk& chunk, Worker& worker)
      const;
  void finish(const Chunk& chunk, TensorState& state, Staging& staging);

  const MergePlan& plan_;
  const int threads_;
  const bool allow_nonfinite_;
  std::vector<Worker> workers_;
  std::vector<TensorState> tensors_;
  std::vector<Digest> output_digests_;
  InputHashes hashes_;
  std::atomic<uint64_t> bytes_done_ = 0;
  std::atomic<int64_t> clamped_ = 0;
  std::atomic<int64_t> nonfinite_ = 0;
  int64_t resumed_ = 0;
};

} // namespace merganser
