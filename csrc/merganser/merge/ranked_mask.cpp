#include "merganser/merge/ranked_mask.h"

#include <algorithm>
#include <functional>

#include "merganser/base/parallel.h"
#include "merganser/merge/random_mask.h"
#include "merganser/merge/rank_selection.h"
#include "merganser/merge/tensor_scan.h"

namespace merganser {
namespace {

constexpr int64_t kWordBits = 64;
static_assert(kChunkElements % kWordBits == 0); // chunks share no words

// Sort key of an element in its row.
struct Key {
  uint64_t magnitude; // bits
  int64_t place;

  // Avoids branches, which the processor could not predict.
  bool operator<(const Key& other) const {
    return (magnitude < other.magnitude) |
        ((magnitude == other.magnitude) & (place < other.place));
  }
};

// Element whose rank is not known closely enough to decide.
struct Undecided {
  Key key;
  float drawn;
};

constexpr int kLevels = 12;
constexpr size_t kBuckets = size_t{1} << kLevels;

// Chooses the elements of a row too long to sort. kBuckets - 1 sampled keys
// divide the row into kBuckets buckets. The sizes of the buckets bound the rank
// of every element, and with it the chance, so closely that the drawn number is
// nearly always above or below. For the others, about n / kBuckets, the exact
// ranks are counted.
template <typename T>
class LongRow {
 public:
  LongRow(
      const TensorPlan& tensor,
      size_t model,
      const RandomMask& mask,
      int threads,
      std::vector<uint64_t>& kept)
      : tensor_(tensor),
        model_(model),
        mask_(mask),
        workers_(threads),
        kept_(kept) {}

  void choose(int64_t begin, int64_t end) {
    begin_ = begin;
    end_ = end;
    sample();
    const std::vector<int64_t> sizes =
        count(kBuckets, [&](const Key& key) { return bucket(key); });
    first_.assign(1, 0);
    for (const int64_t size : sizes) {
      first_.push_back(first_.back() + size);
    }
    decide();
    settle();
  }

 private:
  struct Worker {
    ChunkReader<T> reader;
    std::vector<T> task_vector;
    std::vector<float> drawn;
    std::vector<int64_t> counts;
    std::vector<Undecided> undecided;
  };

  // Reads the row's part in every chunk and calls work(begin, worker).
  template <typename EachPart>
  void for_parts(const EachPart& work) {
    const int64_t first = begin_ / kChunkElements;
    const int64_t last = (end_ - 1) / kChunkElements;
    parallel_for(
        static_cast<int>(workers_.size()),
        last - first + 1,
        [&](int64_t i, int worker) {
          const int64_t chunk = (first + i) * kChunkElements;
          const int64_t begin = std::max(begin_, chunk);
          const int64_t end = std::min(end_, chunk + kChunkElements);
          Worker& w = workers_[worker];
          w.task_vector.resize(end - begin);
          read_task_vector(
              tensor_, model_, begin, std::span(w.task_vector), w.reader);
          work(begin, w);
        });
  }

  static Key key_of(T x, int64_t place) {
    return {magnitude_bits(x), place};
  }

  void sample() {
    splitters_.clear();
    ChunkReader<T>& reader = workers_[0].reader;
    for (size_t i = 1; i < kBuckets; ++i) {
      const auto share = static_cast<double>(i) / kBuckets;
      const int64_t place =
          begin_ + static_cast<int64_t>(share * (end_ - begin_));
      T x;
      read_task_vector(tensor_, model_, place, std::span(&x, 1), reader);
      splitters_.push_back(key_of(x, place));
    }
    std::ranges::sort(splitters_, std::less());
  }

  // Returns the number of splitters that are not above the key.
  size_t bucket(const Key& key) const {
    size_t found = 0;
    for (size_t step = kBuckets / 2; step > 0; step /= 2) {
      found += key < splitters_[found + step - 1] ? 0 : step;
    }
    return found;
  }

  // Returns the number of elements of the row in each of `classes`.
  template <typename Class>
  std::vector<int64_t> count(size_t classes, const Class& class_of) {
    for (Worker& worker : workers_) {
      worker.counts.assign(classes, 0);
    }
    for_parts([&](int64_t begin, Worker& w) {
      for (size_t i = 0; i < w.task_vector.size(); ++i) {
        const auto place = begin + static_cast<int64_t>(i);
        ++w.counts[class_of(key_of(w.task_vector[i], place))];
      }
    });
    std::vector<int64_t> total(classes);
    for (const Worker& worker : workers_) {
      std::ranges::transform(
          total, worker.counts, total.begin(), std::plus<int64_t>());
    }
    return total;
  }

  void keep(int64_t place) {
    kept_[place / kWordBits] |= uint64_t{1} << (place % kWordBits);
  }

  void decide() {
    for_parts([&](int64_t begin, Worker& w) {
      w.drawn.resize(w.task_vector.size());
      mask_.draw(begin, w.drawn);
      for (size_t i = 0; i < w.drawn.size(); ++i) {
        const Key key =
            key_of(w.task_vector[i], begin + static_cast<int64_t>(i));
        const size_t b = bucket(key);
        if (w.drawn[i] < mask_.chance(first_[b])) {
          keep(key.place);
        } else if (w.drawn[i] < mask_.chance(first_[b + 1] - 1)) {
          w.undecided.push_back({key, w.drawn[i]});
        }
      }
    });
  }

  void settle() {
    std::vector<Undecided> undecided;
    for (Worker& worker : workers_) {
      undecided.insert(
          undecided.end(), worker.undecided.begin(), worker.undecided.end());
      worker.undecided.clear();
    }
    std::ranges::sort(undecided, std::less(), &Undecided::key);
    // Class k: elements below undecided[k], but not below undecided[k - 1].
    const std::vector<int64_t> sizes =
        count(undecided.size() + 1, [&](const Key& key) {
          return std::ranges::upper_bound(
                     undecided, key, std::less(), &Undecided::key) -
              undecided.begin();
        });
    int64_t rank = 0;
    for (size_t k = 0; k < undecided.size(); ++k) {
      rank += sizes[k];
      if (undecided[k].drawn < mask_.chance(rank)) {
        keep(undecided[k].key.place);
      }
    }
  }

  const TensorPlan& tensor_;
  const size_t model_;
  const RandomMask& mask_;
  int64_t begin_ = 0; // elements [begin, end)
  int64_t end_ = 0;
  std::vector<Key> splitters_;
  std::vector<int64_t> first_; // first rank of every bucket, and the end
  std::vector<Worker> workers_;
  std::vector<uint64_t>& kept_;
};

} // namespace

bool has_long_rows(const TensorInfo& tensor) {
  return row_length(tensor) > kChunkElements;
}

template <typename T>
std::vector<uint64_t> mask_long_rows(
    const TensorPlan& tensor,
    size_t model,
    size_t output,
    int threads) {
  const int64_t numel = tensor.output.numel();
  const int64_t length = row_length(tensor.output);
  std::vector<uint64_t> kept((numel + kWordBits - 1) / kWordBits);
  if (tensor.parameters[output].density[model] == 0) {
    return kept; // for any epsilon
  }
  const RandomMask mask(tensor, model, output);
  LongRow<T> row(tensor, model, mask, threads, kept);
  for (int64_t begin = 0; begin < numel; begin += length) {
    row.choose(begin, begin + length);
  }
  return kept;
}

uint64_t mask_memory(const TensorInfo& tensor) {
  return has_long_rows(tensor) ? tensor.numel() / 8 + sizeof(uint64_t) : 0;
}

template std::vector<uint64_t> mask_long_rows<float>(
    const TensorPlan&,
    size_t,
    size_t,
    int);
template std::vector<uint64_t> mask_long_rows<double>(
    const TensorPlan&,
    size_t,
    size_t,
    int);

} // namespace merganser
