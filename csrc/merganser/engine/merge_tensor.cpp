#include "merganser/engine/merge_tensor.h"

#include <vector>

#include "merganser/base/parallel.h"
#include "merganser/merge/chunk_merger.h"
#include "merganser/merge/measure_tensor.h"

namespace merganser {
namespace {

template <typename T>
void merge_chunks(
    const TensorPlan& tensor,
    size_t output,
    std::span<const double> fisher_means,
    std::span<std::byte> out,
    int threads) {
  const TensorStatistics statistics = measure_tensor(tensor, output, threads);
  const uint64_t width = dtype_bits(tensor.output.dtype) / 8;
  const int64_t numel = tensor.output.numel();
  std::vector<ChunkMerger<T>> mergers(threads, {fisher_means, false});
  parallel_for(threads, chunk_count(numel), [&](int64_t i, int worker) {
    const Chunk chunk = chunk_at(numel, i);
    std::vector<Digest> ignored(tensor.sources.size());
    mergers[worker].read(tensor, chunk, ignored);
    mergers[worker].merge(
        tensor,
        chunk,
        output,
        &statistics,
        out.subspan(chunk.begin * width, chunk.n * width));
  });
}

} // namespace

void merge_tensor(
    const TensorPlan& tensor,
    size_t output,
    std::span<const double> fisher_means,
    std::span<std::byte> out,
    int threads) {
  if (tensor.action == TensorAction::kCopy) {
    tensor.sources[0].tensor.read(out);
    return;
  }
  if (tensor.float64) {
    merge_chunks<double>(tensor, output, fisher_means, out, threads);
  } else {
    merge_chunks<float>(tensor, output, fisher_means, out, threads);
  }
  if (keeps_bytes(tensor)) { // checked like all others
    tensor.sources[0].tensor.read(out);
  }
}

} // namespace merganser
