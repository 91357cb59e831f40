#include "merganser/text/batching.h"

#include <algorithm>
#include <numeric>

#include <fmt/format.h>

#include "merganser/base/error.h"
#include "merganser/numeric/philox.h"

namespace merganser {
namespace {

// The number of batches whose examples are sorted by length together: enough
// for little padding, few enough that lengths stay mixed over an epoch.
constexpr int64_t kWindow = 50;

// Separate the uses of one seed; the streams that draw labels count from 0.
constexpr uint64_t kExampleStream = uint64_t{1} << 61;
constexpr uint64_t kSubsetStream = uint64_t{1} << 62;
constexpr uint64_t kBatchStream = uint64_t{1} << 63;

// Fisher-Yates with Philox. std::shuffle may differ between libraries. The
// modulo's bias is below size / 2^64.
void shuffle(std::vector<int64_t>& items, uint64_t seed, uint64_t stream) {
  for (size_t i = items.size(); i > 1; --i) {
    std::swap(items[i - 1], items[philox_u64(seed, stream, i) % i]);
  }
}

std::vector<int64_t> positions(int64_t count) {
  std::vector<int64_t> all(static_cast<size_t>(count));
  std::iota(all.begin(), all.end(), int64_t{0});
  return all;
}

// Stable, so that ties keep their order.
template <typename Iterator>
void sort_longest_first(const Dataset& data, Iterator begin, Iterator end) {
  std::stable_sort(begin, end, [&](int64_t a, int64_t b) {
    return data.ids[a].size() > data.ids[b].size();
  });
}

void check_batch_size(int64_t batch_size) {
  if (batch_size < 1) {
    throw InputError(
        fmt::format("the batch size must be at least 1, not {}", batch_size));
  }
}

std::vector<std::vector<int64_t>> cut(
    const std::vector<int64_t>& order,
    int64_t batch_size) {
  std::vector<std::vector<int64_t>> batches;
  const int64_t count = static_cast<int64_t>(order.size());
  for (int64_t first = 0; first < count; first += batch_size) {
    batches.emplace_back(
        order.begin() + first,
        order.begin() + std::min(first + batch_size, count));
  }
  return batches;
}

} // namespace

Batch make_batch(
    const Dataset& data,
    const std::vector<int64_t>& indices,
    int32_t pad_id) {
  Batch batch;
  batch.size = static_cast<int64_t>(indices.size());
  for (const int64_t index : indices) {
    batch.length =
        std::max(batch.length, static_cast<int64_t>(data.ids[index].size()));
  }
  batch.input_ids.assign(batch.size * batch.length, pad_id);
  batch.indices = indices;
  for (int64_t row = 0; row < batch.size; ++row) {
    const std::vector<int32_t>& ids = data.ids[indices[row]];
    std::copy(
        ids.begin(), ids.end(), batch.input_ids.begin() + row * batch.length);
    batch.lengths.push_back(static_cast<int64_t>(ids.size()));
    batch.labels.push_back(data.labels[indices[row]]);
  }
  if (!data.token_types.empty()) {
    batch.token_types.assign(batch.input_ids.size(), 0);
    for (int64_t row = 0; row < batch.size; ++row) {
      const std::vector<int32_t>& types = data.token_types[indices[row]];
      std::copy(
          types.begin(),
          types.end(),
          batch.token_types.begin() + row * batch.length);
    }
  }
  return batch;
}

std::vector<int64_t> shuffled(
    std::vector<int64_t> items,
    uint64_t seed,
    uint64_t stream) {
  shuffle(items, seed, stream);
  return items;
}

std::vector<std::vector<int64_t>> training_batches(
    const Dataset& data,
    int64_t batch_size,
    uint64_t seed,
    int64_t epoch) {
  check_batch_size(batch_size);
  std::vector<int64_t> order = positions(data.size());
  shuffle(order, seed, kExampleStream + static_cast<uint64_t>(epoch));
  const int64_t window = kWindow * batch_size;
  for (int64_t first = 0; first < data.size(); first += window) {
    sort_longest_first(
        data,
        order.begin() + first,
        order.begin() + std::min(first + window, data.size()));
  }
  const std::vector<std::vector<int64_t>> sorted = cut(order, batch_size);
  std::vector<int64_t> turns = positions(static_cast<int64_t>(sorted.size()));
  shuffle(turns, seed, kBatchStream + static_cast<uint64_t>(epoch));
  std::vector<std::vector<int64_t>> batches;
  batches.reserve(sorted.size());
  for (const int64_t turn : turns) {
    batches.push_back(sorted[turn]);
  }
  return batches;
}

std::vector<std::vector<int64_t>> sorted_batches(
    const Dataset& data,
    int64_t batch_size) {
  return sorted_batches(data, batch_size, positions(data.size()));
}

std::vector<std::vector<int64_t>> sorted_batches(
    const Dataset& data,
    int64_t batch_size,
    std::vector<int64_t> subset) {
  check_batch_size(batch_size);
  sort_longest_first(data, subset.begin(), subset.end());
  return cut(subset, batch_size);
}

std::vector<int64_t> draw_subset(int64_t size, int64_t count, uint64_t seed) {
  std::vector<int64_t> order = positions(size);
  if (count >= 0 && count < size) {
    shuffle(order, seed, kSubsetStream);
    order.resize(static_cast<size_t>(count));
    std::sort(order.begin(), order.end());
  }
  return order;
}

} // namespace merganser
