#include "merge/chunk_merger.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <type_traits>

#include "io/error.h"
#include "io/quote.h"

namespace merganser {
namespace {

template <typename T>
constexpr DType kType = std::is_same_v<T, float> ? DType::kF32 : DType::kF64;

template <typename T>
void convert_from(DType dtype, const std::byte* in, T* out, size_t n) {
  if constexpr (std::is_same_v<T, float>) {
    to_float32(dtype, in, out, n);
  } else {
    to_float64(dtype, in, out, n);
  }
}

template <typename T>
void convert_to(DType dtype, const T* in, std::byte* out, size_t n) {
  if constexpr (std::is_same_v<T, float>) {
    from_float32(dtype, in, out, n);
  } else {
    from_float64(dtype, in, out, n);
  }
}

// The least magnitude that rounds to infinity: half a unit in the last place
// above the largest finite number.
template <typename T>
T overflow_bound(DType dtype) {
  if (dtype_bits(dtype) >= static_cast<int>(8 * sizeof(T))) {
    return std::numeric_limits<T>::infinity();
  }
  switch (dtype) {
    case DType::kF16:
      return T(65520);
    case DType::kBF16:
      return T(0x1.ffp127);
    default: // float32 from float64
      return T(0x1.ffffffp127);
  }
}

} // namespace

template <typename T>
ChunkMerger<T>::ChunkMerger(const MergePlan& plan, bool allow_nonfinite)
    : plan_(plan),
      allow_nonfinite_(allow_nonfinite),
      sources_(plan.sources()),
      weights_(plan.weights.begin(), plan.weights.end()),
      scales_(plan.scales.begin(), plan.scales.end()),
      values_(sources_.size(), std::vector<T>(kChunkElements)),
      result_(kChunkElements),
      bytes_(kChunkElements * sizeof(double)) {
  for (const auto& values : values_) {
    pointers_.push_back(values.data());
  }
  scalars_ = {
      .count = static_cast<int>(plan.models.size()),
      .weights = weights_.data(),
      .scales = scales_.data(),
      .base_scale = static_cast<T>(plan.base_scale),
      .delta = static_cast<T>(plan.recipe.delta),
      .clamp = static_cast<T>(plan.recipe.clamp),
      .floor = static_cast<T>(plan.recipe.floor)};
  // In the order of plan.sources().
  const T* const* next = pointers_.data();
  if (method_info(plan.recipe.method).needs_base) {
    arrays_.base = *next++;
  }
  if (plan.base_fisher) {
    arrays_.base_fisher = *next++;
  }
  arrays_.models = next;
  arrays_.fishers = next + plan.models.size();
  arrays_.out = result_.data();
}

template <typename T>
void ChunkMerger<T>::read(
    const StoredTensor& source,
    const Chunk& chunk,
    T* to,
    Digest& digest) {
  const DType dtype = source.info().dtype;
  const uint64_t width = dtype_bits(dtype) / 8;
  // Of the type that is calculated with: straight to its place.
  const bool same = dtype == kType<T>;
  const std::span<std::byte> part(
      same ? reinterpret_cast<std::byte*>(to) : bytes_.data(), chunk.n * width);
  source.read(part, chunk.begin * width);
  digest = hash_bytes(part);
  if (!same) {
    convert_from(dtype, part.data(), to, chunk.n);
  }
}

template <typename T>
MergedChunk ChunkMerger<T>::merge(
    const TensorPlan& tensor,
    const Chunk& chunk,
    std::span<Digest> digests) {
  for (size_t s = 0; s < values_.size(); ++s) {
    read(tensor.sources[s], chunk, values_[s].data(), digests[s]);
  }
  const MergeFindings<T> found =
      merge_elements(plan_.recipe.method, scalars_, arrays_, chunk.n);
  if (!found.inputs_good) {
    check_inputs(tensor, chunk);
  }
  const DType dtype = tensor.output.dtype;
  MergedChunk merged;
  merged.clamped = found.clamped;
  if (!(found.largest < overflow_bound<T>(dtype))) {
    merged.nonfinite = check_result(tensor, chunk);
  }
  const size_t size = chunk.n * dtype_bits(dtype) / 8;
  if (dtype == kType<T>) {
    merged.bytes = std::as_bytes(std::span(result_)).first(size);
  } else {
    convert_to(dtype, result_.data(), bytes_.data(), chunk.n);
    merged.bytes = std::span(bytes_).first(size);
  }
  return merged;
}

// The pass over the chunk found that something is wrong; this finds where.
template <typename T>
void ChunkMerger<T>::check_inputs(const TensorPlan& tensor, const Chunk& chunk)
    const {
  for (size_t s = 0; s < sources_.size(); ++s) {
    const bool fisher = sources_[s].is_fisher;
    for (int64_t i = 0; i < chunk.n; ++i) {
      const T x = values_[s][i];
      if ((!allow_nonfinite_ && !std::isfinite(x)) || (fisher && x < 0)) {
        throw InputError(fmt::format(
            "{}: tensor {} is {} at index {}, {}",
            tensor.sources[s].file().string(),
            quote(tensor.sources[s].info().name),
            x,
            chunk.begin + i,
            fisher ? "a Fisher is finite and not negative"
                   : "only finite values can be merged"));
      }
    }
  }
}

// The number of values that the output's type cannot hold, where those are
// allowed.
template <typename T>
int64_t ChunkMerger<T>::check_result(
    const TensorPlan& tensor,
    const Chunk& chunk) const {
  const DType dtype = tensor.output.dtype;
  int64_t count = 0;
  for (int64_t i = 0; i < chunk.n; ++i) {
    if (std::abs(result_[i]) < overflow_bound<T>(dtype)) {
      continue;
    }
    if (!allow_nonfinite_) {
      throw InputError(fmt::format(
          "tensor {} would be {} at index {}, which {} cannot hold; choose "
          "another out_dtype or smaller weights",
          quote(tensor.output.name),
          result_[i],
          chunk.begin + i,
          dtype_name(dtype)));
    }
    ++count;
  }
  return count;
}

template class ChunkMerger<float>;
template class ChunkMerger<double>;

} // namespace merganser
