#pragma once

#include <span>
#include <vector>

#include "merganser/io/content_hash.h"
#include "merganser/merge/chunks.h"
#include "merganser/plan/tensor_plan.h"

namespace merganser {

// Reads a chunk of all sources of a tensor as numbers of T, float or double.
// One per thread: it owns the buffers.
template <typename T>
class ChunkReader {
 public:
  // Sets values(s), valid until the next call, and `digests` of the bytes read,
  // one per source (without adapters). The sources have one shape. Fishers are
  // raised to their power. With `as_stored`, values(s) of parameters are left
  // as stored.
  void read(
      std::span<const TensorSource> sources,
      const Chunk& chunk,
      std::span<Digest> digests,
      bool as_stored = false);

  T* values(size_t source) {
    return values_[source].data();
  }

  // Converts values(s) that were read with `as_stored`.
  void convert_stored(std::span<const TensorSource> sources, int64_t n);

  // Size of its buffers in bytes.
  static constexpr uint64_t memory(size_t sources) {
    return kChunkElements * (sources * sizeof(T) + sizeof(double));
  }

 private:
  void read(
      const StoredTensor& source,
      const Chunk& chunk,
      T* to,
      Digest& digest,
      bool as_stored);
  void raise(T* values, int64_t n, double power) const;
  void add_update(const TensorSource& source, const Chunk& chunk, size_t place);

  std::vector<std::vector<T>> values_;
  std::vector<std::byte> bytes_; // as read from a source of another type
  // Matrices of the adapter that a source used last.
  struct Matrices {
    const LoraUpdate* of = nullptr;
    std::vector<T> left; // (rows, rank)
    std::vector<T> right; // (rank, columns)
  };
  std::vector<Matrices> matrices_;
  std::vector<T> sum_; // update of a part of a row
};

} // namespace merganser
