#include "merganser/engine/buffer_memory.h"

#include <fmt/format.h>

#include <algorithm>

#include "merganser/base/error.h"
#include "merganser/base/parallel.h"
#include "merganser/base/text_table.h"
#include "merganser/engine/strips.h"
#include "merganser/merge/chunk_merger.h"
#include "merganser/merge/gram.h"
#include "merganser/merge/measure_tensor.h"
#include "merganser/merge/ranked_mask.h"
#include "merganser/merge/spectral.h"

namespace merganser {
namespace {

// Size of a tensor's adapters in one thread: every A and B in the type of the
// arithmetic, and the largest as it is stored.
uint64_t adapter_memory(const TensorPlan& tensor) {
  const uint64_t width = tensor.float64 ? sizeof(double) : sizeof(float);
  uint64_t held = 0;
  uint64_t stored = 0;
  for (const TensorSource& source : tensor.sources) {
    if (source.update != nullptr) {
      const TensorInfo& a = source.update->a.info();
      const TensorInfo& b = source.update->b.info();
      held += width * (a.numel() + b.numel());
      stored = std::max({stored, a.bytes(), b.bytes()});
    }
  }
  return held + stored;
}

// Size of the largest strip of an output.
uint64_t strip_memory(const MergePlan& plan) {
  uint64_t largest = 0;
  for (const TensorPlan& tensor : plan.tensors) {
    const int64_t n = std::min(kStripElements, tensor.output.numel());
    largest =
        std::max<uint64_t>(largest, n * dtype_bits(tensor.output.dtype) / 8);
  }
  return largest;
}

// Size of one thread's buffers, for the largest tensor of each arithmetic.
uint64_t thread_memory(const MergePlan& plan) {
  const MethodInfo& method = *plan.recipe.method;
  uint64_t total = plan.outputs.size() * strip_memory(plan);
  for (const bool float64 : {false, true}) {
    size_t sources = 0;
    size_t models = 0;
    uint64_t adapters = 0; // the matrices of one tensor at a time
    uint64_t spectral = 0; // likewise
    for (const TensorPlan& tensor : plan.tensors) {
      if (tensor.action == TensorAction::kMerge && tensor.float64 == float64) {
        adapters = std::max(adapters, adapter_memory(tensor));
        spectral = std::max(spectral, spectral_memory(tensor));
        sources = std::max(sources, tensor.sources.size());
        models = std::max(models, tensor.num_models);
      }
    }
    total += adapters + spectral;
    if (sources > 0) {
      const size_t task_vectors =
          method.sparsify == Sparsify::kNone ? 0 : models;
      total += float64 ? ChunkMerger<double>::memory(sources, task_vectors)
                       : ChunkMerger<float>::memory(sources, task_vectors);
      total += statistics_memory(method, models);
    }
  }
  return total;
}

// Size of what the threads share, for the largest tensor.
uint64_t shared_memory(const MergePlan& plan) {
  uint64_t largest = 0;
  for (const TensorPlan& tensor : plan.tensors) {
    uint64_t masks = 0;
    if (tensor.action == TensorAction::kMerge &&
        tensor.method->sparsify == Sparsify::kRanked) {
      masks =
          tensor.num_models * plan.outputs.size() * mask_memory(tensor.output);
    }
    largest = std::max({largest, gram_memory(tensor), masks});
  }
  return largest;
}

} // namespace

BufferMemory buffer_memory(const MergePlan& plan, int threads) {
  threads = thread_count(threads);
  return {threads, shared_memory(plan) + threads * thread_memory(plan)};
}

BufferMemory fit_threads(const MergePlan& plan, int threads, uint64_t limit) {
  const uint64_t shared = shared_memory(plan);
  const uint64_t one = thread_memory(plan);
  if (shared + one > limit) {
    throw InputError(fmt::format(
        "one thread of this merge needs {} of buffers, more than the limit of "
        "{}; raise --memory",
        format_bytes(shared + one),
        format_bytes(limit)));
  }
  const uint64_t fitting = (limit - shared) / std::max<uint64_t>(one, 1);
  threads =
      static_cast<int>(std::min<uint64_t>(thread_count(threads), fitting));
  return {threads, shared + threads * one};
}

} // namespace merganser
