#pragma once

#include <span>
#include <vector>

#include "merganser/io/content_hash.h"
#include "merganser/merge/chunks.h"
#include "merganser/plan/tensor_plan.h"

namespace merganser {

// Reads a chunk of all of a tensor's sources as numbers of T, float or double.
// One per thread: it owns the buffers.
template <typename T>
class ChunkReader {
 public:
  // Sets values(s), valid until the next call, and `digests` of what was read,
  // one per source (of which an adapter's part is none). The sources are of one
  // shape. With `as_stored` values(s) of parameters are left as their bytes.
  void read(
      std::span<const TensorSource> sources,
      const Chunk& chunk,
      std::span<Digest> digests,
      bool as_stored = false);

  T* values(size_t source) {
    return values_[source].data();
  }

  // Makes values(s) of what was read as it is stored.
  void convert_stored(std::span<const TensorSource> sources, int64_t n);

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
  void add_update(const TensorSource& source, const Chunk& chunk, size_t place);

  std::vector<std::vector<T>> values_;
  std::vector<std::byte> bytes_; // of a source of another type
  // The adapters' matrices that were used last, of the sources.
  struct Matrices {
    const LoraUpdate* of = nullptr;
    std::vector<T> left; // (rows, rank)
    std::vector<T> right; // (rank, columns)
  };
  std::vector<Matrices> matrices_;
  std::vector<T> sum_; // of a row's part
};

} // namespace merganser
