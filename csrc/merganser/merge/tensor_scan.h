#pragma once

#include <functional>
#include <span>
#include <vector>

#include "merganser/base/parallel.h"
#include "merganser/merge/chunk_reader.h"

namespace merganser {

// Sets `out` to theta - base of a model's elements [begin, begin + out.size()),
// for methods that use the base.
template <typename T>
void read_task_vector(
    const TensorPlan& tensor,
    size_t model,
    int64_t begin,
    std::span<T> out,
    ChunkReader<T>& reader) {
  const TensorSource pair[] = {
      tensor.sources[tensor.base()], tensor.sources[tensor.model(model)]};
  const Chunk part = {.begin = begin, .n = std::ssize(out)};
  Digest ignored[2];
  reader.read(pair, part, ignored);
  for (int64_t i = 0; i < part.n; ++i) {
    out[i] = reader.values(1)[i] - reader.values(0)[i];
  }
}

// Reads all sources of a tensor, chunk by chunk, with several threads.
template <typename T>
class TensorScan {
 public:
  struct Worker {
    size_t index = 0;
    ChunkReader<T> reader;
    std::vector<T> task_vector;
    std::vector<Digest> digests;
  };

  TensorScan(const TensorPlan& tensor, int threads)
      : tensor_(tensor), workers_(threads) {
    for (size_t i = 0; i < workers_.size(); ++i) {
      workers_[i].index = i;
    }
  }

  const TensorPlan& tensor() const {
    return tensor_;
  }
  size_t workers() const {
    return workers_.size();
  }

  // Calls work(chunk, worker) for every chunk, read by worker.reader.
  template <typename Work>
  void for_chunks(const Work& work) {
    parallel_for(
        static_cast<int>(workers_.size()),
        chunk_count(tensor_.output.numel()),
        [&](int64_t i, int worker) {
          Worker& w = workers_[worker];
          w.digests.resize(tensor_.sources.size());
          const Chunk chunk = chunk_at(tensor_.output.numel(), i);
          w.reader.read(tensor_.sources, chunk, w.digests);
          work(chunk, w);
        });
  }

  // Calls add(chunk, worker, sums) for every chunk and adds up the sums in the
  // chunks' order, so that they do not depend on the number of threads.
  template <typename Add>
  std::vector<double> sum_over_chunks(size_t count, const Add& add) {
    const int64_t chunks = chunk_count(tensor_.output.numel());
    std::vector<double> parts(count * static_cast<size_t>(chunks));
    for_chunks([&](const Chunk& chunk, Worker& worker) {
      add(chunk, worker, std::span(parts).subspan(chunk.index * count, count));
    });
    std::vector<double> sums(count);
    for (size_t i = 0; i < parts.size(); ++i) {
      sums[i % count] += parts[i];
    }
    return sums;
  }

  // Returns theta_t - theta_0 of the chunk that the worker has read.
  std::span<const T> task_vector(
      Worker& worker,
      const Chunk& chunk,
      size_t model) const {
    worker.task_vector.resize(kChunkElements);
    const T* base = worker.reader.values(tensor_.base());
    const T* theta = worker.reader.values(tensor_.model(model));
    for (int64_t i = 0; i < chunk.n; ++i) {
      worker.task_vector[i] = theta[i] - base[i];
    }
    return std::span(worker.task_vector).first(chunk.n);
  }

 private:
  const TensorPlan& tensor_;
  std::vector<Worker> workers_;
};

} // namespace merganser
