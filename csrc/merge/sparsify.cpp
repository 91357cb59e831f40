#include "merge/sparsify.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <span>

#include "io/content_hash.h"
#include "kernels/philox.h"
#include "merge/chunk_reader.h"
#include "merge/rank_selection.h"

namespace merganser {
namespace {

// Of every element of [begin, begin + n) a number in [0, 1).
void draw(
    const TensorPlan& tensor,
    const SparsifyArguments& a,
    int64_t begin,
    int64_t n,
    float* out) {
  const auto seed = static_cast<uint64_t>(tensor.parameters[a.output].seed);
  const std::string& name = tensor.output.name;
  const Digest digest = hash_bytes(std::as_bytes(std::span(name)));
  const uint64_t stream = digest.low + a.model;
  constexpr int64_t kWords = 4;
  PhiloxBlock block = {};
  for (int64_t i = 0; i < n; ++i) {
    const int64_t place = begin + i;
    if (i == 0 || place % kWords == 0) {
      block = philox(seed, stream, static_cast<uint64_t>(place / kWords));
    }
    // 24 bits: what a float holds exactly.
    out[i] = static_cast<float>(block.word[place % kWords] >> 8) * 0x1p-24f;
  }
}

// Elements in a row of the tensor: its last dimensions but the first.
int64_t row_length(const TensorInfo& tensor) {
  const int64_t numel = tensor.numel();
  return tensor.shape.size() < 2 || numel == 0 ? numel
                                               : numel / tensor.shape.front();
}

// theta - base of elements [begin, begin + task_vector.size()).
template <typename T>
void read_task_vector(
    const TensorPlan& tensor,
    size_t model,
    int64_t begin,
    std::span<T> task_vector) {
  const TensorSource pair[] = {tensor.sources[0], tensor.sources[1 + model]};
  Chunk part;
  part.begin = begin;
  part.n = std::ssize(task_vector);
  ChunkReader<T> reader;
  Digest ignored[2];
  reader.read(pair, part, ignored);
  for (int64_t i = 0; i < part.n; ++i) {
    task_vector[i] = reader.values(1)[i] - reader.values(0)[i];
  }
}

// The probability that DELLA keeps an element: from density - epsilon for the
// least magnitude of its row to density + epsilon for the greatest. Reads the
// rows that the chunk lies in.
template <typename T>
std::vector<float> ranked_probabilities(
    const TensorPlan& tensor,
    const Chunk& chunk,
    const SparsifyArguments& a) {
  const TensorParameters& p = tensor.parameters[a.output];
  const double density = p.density[a.model];
  const double epsilon = p.epsilon[a.model];
  const int64_t length = row_length(tensor.output);
  std::vector<float> probabilities(chunk.n);
  std::vector<T> row(length);
  std::vector<int64_t> order(length);
  for (int64_t i = 0; i < chunk.n;) {
    const int64_t index = chunk.begin + i;
    const int64_t begin = index / length * length;
    read_task_vector(tensor, a.model, begin, std::span(row));
    std::iota(order.begin(), order.end(), int64_t{0});
    std::ranges::stable_sort(
        order, {}, [&](int64_t k) { return magnitude_bits(row[k]); });
    const int64_t end = std::min(begin + length, chunk.begin + chunk.n);
    for (int64_t rank = 0; rank < length; ++rank) {
      const int64_t place = begin + order[rank];
      if (place >= index && place < end) {
        const double share =
            length == 1 ? 0 : static_cast<double>(rank) / (length - 1);
        probabilities[place - chunk.begin] =
            static_cast<float>(density - epsilon + share * 2 * epsilon);
      }
    }
    i += end - index;
  }
  return probabilities;
}

} // namespace

template <typename T>
bool sparsify(
    const MergePlan& plan,
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
  if (density >= 1) {
    return finite;
  }
  const Sparsify kind = plan.recipe.method->sparsify;
  if (kind == Sparsify::kMagnitude || kind == Sparsify::kOutliers) {
    const auto least = static_cast<T>(a.statistics.least[a.model]);
    const auto most = static_cast<T>(a.statistics.most[a.model]);
    for (int64_t i = 0; i < chunk.n; ++i) {
      const T magnitude = std::abs(out[i]);
      out[i] = magnitude < least || magnitude > most ? T(0) : rescale * out[i];
    }
    return finite;
  }
  std::vector<float> drawn(chunk.n);
  draw(tensor, a, chunk.begin, chunk.n, drawn.data());
  std::vector<float> probabilities;
  if (kind == Sparsify::kRanked && density > 0) {
    probabilities = ranked_probabilities<T>(tensor, chunk, a);
  } else {
    probabilities.assign(chunk.n, static_cast<float>(density));
  }
  for (int64_t i = 0; i < chunk.n; ++i) {
    out[i] = drawn[i] < probabilities[i] ? rescale * out[i] : T(0);
  }
  return finite;
}

template bool sparsify(
    const MergePlan&,
    const TensorPlan&,
    const Chunk&,
    const SparsifyArguments&,
    const float*,
    const float*,
    float*);
template bool sparsify(
    const MergePlan&,
    const TensorPlan&,
    const Chunk&,
    const SparsifyArguments&,
    const double*,
    const double*,
    double*);

} // namespace merganser
