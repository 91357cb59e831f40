#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "merganser/base/progress.h"
#include "merganser/engine/input_hashes.h"
#include "merganser/engine/journal.h"
#include "merganser/engine/staging.h"
#include "merganser/engine/strips.h"
#include "merganser/io/checkpoint.h"
#include "merganser/merge/chunk_merger.h"
#include "merganser/plan/plan.h"

namespace merganser {

// Merges the data: one thread reads the sources of a strip, merges them chunk
// by chunk and writes the result. Strips finish in any order; finished tensors
// go into the staging's journal.
class MergeRun {
 public:
  MergeRun(const MergePlan& plan, int threads, bool allow_nonfinite);

  // Writes the weights into the staging directory, or the outputs' below it.
  void write_weights(
      Staging& staging,
      uint64_t shard_bytes,
      const ProgressCallback& progress);

  // Valid once the weights are written:
  std::vector<std::string> input_hashes(); // content hashes of plan.inputs
  const std::vector<Digest>& output_digests(size_t output) const {
    return output_digests_[output];
  }
  int64_t clamped() const {
    return clamped_;
  }
  double largest_weight() const {
    return largest_weight_;
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
    std::vector<std::vector<std::byte>> strips; // of the outputs
    std::vector<std::span<std::byte>> results; // a chunk's places in them
    std::vector<Digest> digests; // of a chunk's sources and results
  };

  // State of a tensor during its merge.
  struct TensorState {
    std::once_flag begun;
    int64_t chunks = 0;
    std::vector<Digest> blocks; // (sources and results, chunks)
    // One per output if the method needs them; outputs can share one.
    std::vector<std::shared_ptr<const TensorStatistics>> statistics;
    std::atomic<int64_t> done = 0; // strips
    std::atomic<int64_t> clamped = 0;
    std::atomic<double> largest_weight = 0;
    std::atomic<int64_t> nonfinite = 0;
  };

  void open_writers(const Staging& staging, uint64_t shard_bytes);
  std::vector<size_t> restore_finished(const Staging& staging);
  void record(const FinishedTensor& finished);
  void measure(size_t tensor, int threads);
  void merge_whole(
      const std::vector<size_t>& tensors,
      Staging& staging,
      const ProgressCallback& progress);
  void merge_tensors(
      const std::vector<size_t>& tensors,
      Staging& staging,
      const ProgressCallback& progress);
  void merge_strip(const Strip& strip, Worker& worker, Staging& staging);
  void process_chunk(size_t tensor, const Chunk& chunk, Worker& worker);
  void merge_chunk(size_t tensor, const Chunk& chunk, Worker& worker);
  void copy_chunk(size_t tensor, const Chunk& chunk, Worker& worker);
  void finish(size_t tensor, Staging& staging);

  const MergePlan& plan_;
  const int threads_;
  const bool allow_nonfinite_;
  std::vector<Worker> workers_;
  std::vector<TensorState> tensors_;
  std::vector<std::unique_ptr<CheckpointWriter>> writers_; // of the outputs
  std::vector<std::vector<Digest>> output_digests_; // [output][tensor]
  std::vector<double> fisher_means_; // where parameters ask for them
  InputHashes hashes_;
  std::atomic<uint64_t> bytes_done_ = 0;
  std::atomic<int64_t> clamped_ = 0;
  std::atomic<double> largest_weight_ = 0;
  std::atomic<int64_t> nonfinite_ = 0;
  int64_t resumed_ = 0;
};

} // namespace merganser
