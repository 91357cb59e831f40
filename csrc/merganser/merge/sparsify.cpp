#include "merganser/merge/sparsify.h"

#include <algorithm>
#include <cmath>
#include <span>
#include <utility>

#include "merganser/merge/random_mask.h"
#include "merganser/merge/rank_selection.h"
#include "merganser/merge/ranked_mask.h"
#include "merganser/merge/tensor_scan.h"

namespace merganser {
namespace {

// Returns the chances of a chunk's elements `task_vector`, in rows that are not
// longer than a chunk. Reads the other parts of rows that the chunk cuts.
template <typename T>
std::vector<float> ranked_chances(
    const TensorPlan& tensor,
    const RandomMask& mask,
    size_t model,
    const Chunk& chunk,
    std::span<const T> task_vector) {
  const int64_t length = row_length(tensor.output);
  const int64_t chunk_end = chunk.begin + chunk.n;
  const int64_t begin = chunk.begin / length * length;
  const int64_t end = (chunk_end + length - 1) / length * length;
  std::vector<T> rows(end - begin);
  ChunkReader<T> reader;
  const auto read = [&](int64_t from, int64_t to) {
    if (from < to) {
      const auto part = std::span(rows).subspan(from - begin, to - from);
      read_task_vector(tensor, model, from, part, reader);
    }
  };
  read(begin, chunk.begin);
  std::ranges::copy(task_vector, rows.begin() + (chunk.begin - begin));
  read(chunk_end, end);

  std::vector<float> found(chunk.n);
  using Bits = decltype(magnitude_bits(T()));
  std::vector<std::pair<Bits, int64_t>> order(length); // magnitude, position
  for (int64_t row = begin; row < end; row += length) {
    for (int64_t i = 0; i < length; ++i) {
      order[i] = {magnitude_bits(rows[row - begin + i]), row + i};
    }
    std::ranges::sort(order);
    for (int64_t rank = 0; rank < length; ++rank) {
      const int64_t position = order[rank].second;
      if (position >= chunk.begin && position < chunk_end) {
        found[position - chunk.begin] = mask.chance(rank);
      }
    }
  }
  return found;
}

// Drops elements of the task vector in `out` and rescales the others.
template <typename T>
void apply_random_mask(
    Sparsify kind,
    const TensorPlan& tensor,
    const Chunk& chunk,
    const SparsifyArguments& a,
    std::span<T> out) {
  const double density = tensor.parameters[a.output].density[a.model];
  const auto rescale = static_cast<T>(a.statistics.rescale[a.model]);
  const RandomMask mask(tensor, a.model, a.output);
  std::vector<float> drawn(chunk.n);
  mask.draw(chunk.begin, drawn);
  std::vector<float> chance;
  if (kind == Sparsify::kRanked && density > 0) {
    chance = ranked_chances<T>(tensor, mask, a.model, chunk, out);
  } else {
    chance.assign(chunk.n, static_cast<float>(density));
  }
  for (int64_t i = 0; i < chunk.n; ++i) {
    out[i] = drawn[i] < chance[i] ? rescale * out[i] : T(0);
  }
}

} // namespace

template <typename T>
bool sparsify(
    const TensorPlan& tensor,
    const Chunk& chunk,
    const SparsifyArguments& a,
    const T* base,
    const T* theta,
    T* out) {
  const double density = tensor.parameters[a.output].density[a.model];
  const auto rescale = static_cast<T>(a.statistics.rescale[a.model]);
  bool finite = true;
  for (int64_t i = 0; i < chunk.n; ++i) {
    out[i] = theta[i] - base[i];
    finite &= std::isfinite(out[i]);
  }
  if (density >= 1 || chunk.n == 0) {
    return finite;
  }
  const Sparsify kind = tensor.method->sparsify;
  if (kind == Sparsify::kMagnitude || kind == Sparsify::kOutliers) {
    const auto min = static_cast<T>(a.statistics.min_magnitude[a.model]);
    const auto max = static_cast<T>(a.statistics.max_magnitude[a.model]);
    for (int64_t i = 0; i < chunk.n; ++i) {
      const T magnitude = std::abs(out[i]);
      out[i] = magnitude < min || magnitude > max ? T(0) : rescale * out[i];
    }
    return finite;
  }
  if (!a.statistics.mask.empty()) {
    const std::vector<uint64_t>& mask = a.statistics.mask[a.model];
    for (int64_t i = 0; i < chunk.n; ++i) {
      out[i] = is_kept(mask, chunk.begin + i) ? rescale * out[i] : T(0);
    }
    return finite;
  }
  apply_random_mask<T>(kind, tensor, chunk, a, std::span(out, chunk.n));
  return finite;
}

uint64_t random_mask_memory(const MethodInfo& method) {
  if (method.sparsify != Sparsify::kRandom &&
      method.sparsify != Sparsify::kRanked) {
    return 0;
  }
  const uint64_t drawn = kChunkElements * 2 * sizeof(float);
  // A chunk, and the parts of its rows before and after it.
  const uint64_t rows = kChunkElements * 3 * sizeof(double);
  const uint64_t order = kChunkElements * sizeof(std::pair<uint64_t, int64_t>);
  return method.sparsify == Sparsify::kRandom
      ? drawn
      : drawn + ChunkReader<double>::memory(2) + rows + order;
}

template MERGANSER_API bool sparsify(
    const TensorPlan&,
    const Chunk&,
    const SparsifyArguments&,
    const float*,
    const float*,
    float*);
template MERGANSER_API bool sparsify(
    const TensorPlan&,
    const Chunk&,
    const SparsifyArguments&,
    const double*,
    const double*,
    double*);

} // namespace merganser
