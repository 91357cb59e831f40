#pragma once

#include <functional>
#include <span>
#include <vector>

#include "merganser/base/parallel.h"
#include "merganser/merge/chunk_reader.h"

namespace merganser {

// Goes through the sources of a tensor, chunk by chunk, with several threads.
template <typename T>
class TensorScan {
 public:
  struct Worker {
    size_t index = 0;
    ChunkReader<T> reader;
    std::vector<T> task_vector;
    std::vector<Digest> digests;
  };

  // The tensor is one of the plan's.
  TensorScan(const MergePlan& plan, size_t tensor, int threads)
      : tensor_(plan.tensors[tensor]),
        chunks_(plan, {tensor}),
        workers_(threads) {
    for (size_t i = 0; i < workers_.size(); ++i) {
      workers_[i].index = i;
    }
  }

  size_t workers() const {
    return workers_.size();
  }

  // work(chunk, worker), whose reader has read it.
  template <typename Work>
  void for_chunks(const Work& work) {
    parallel_for(
        static_cast<int>(workers_.size()),
        chunks_.size(),
        [&](int64_t i, int worker) {
          Worker& w = workers_[worker];
          w.digests.resize(tensor_.sources.size());
          const Chunk chunk = chunks_[i];
          w.reader.read(tensor_.sources, chunk, w.digests);
          work(chunk, w);
        });
  }

  // add(chunk, worker, sums) for every chunk. Added up per chunk and then in
  // the chunks' order: the same for any number of threads.
  template <typename Add>
  std::vector<double> sum_over_chunks(size_t count, const Add& add) {
    std::vector<double> parts(count * static_cast<size_t>(chunks_.size()));
    for_chunks([&](const Chunk& chunk, Worker& worker) {
      add(chunk, worker, std::span(parts).subspan(chunk.index * count, count));
    });
    std::vector<double> sums(count);
    for (size_t i = 0; i < parts.size(); ++i) {
      sums[i % count] += parts[i];
    }
    return sums;
  }

  // theta_t - theta_0 of a chunk that was read.
  static std::span<const T> task_vector(
      Worker& worker,
      const Chunk& chunk,
      size_t model) {
    worker.task_vector.resize(kChunkElements);
    const T* base = worker.reader.values(0);
    const T* theta = worker.reader.values(1 + model);
    for (int64_t i = 0; i < chunk.n; ++i) {
      worker.task_vector[i] = theta[i] - base[i];
    }
    return std::span(worker.task_vector).first(chunk.n);
  }

 private:
  const TensorPlan& tensor_;
  const ChunkList chunks_;
  std::vector<Worker> workers_;
};

} // namespace merganser
