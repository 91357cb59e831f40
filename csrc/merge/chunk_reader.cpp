#include "merge/chunk_reader.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "io/error.h"
#include "io/quote.h"
#include "merge/arithmetic.h"

namespace merganser {
namespace {

template <typename T>
std::vector<T> read_all(const StoredTensor& tensor) {
  const TensorInfo& info = tensor.info();
  std::vector<std::byte> bytes(info.bytes());
  tensor.read(bytes);
  std::vector<T> values(info.numel());
  convert_from(info.dtype, bytes.data(), values.data(), values.size());
  return values;
}

} // namespace

template <typename T>
void ChunkReader<T>::read(
    std::span<const TensorSource> sources,
    const Chunk& chunk,
    std::span<Digest> digests,
    bool as_stored) {
  const size_t count = sources.size();
  if (values_.size() < count) {
    values_.resize(count);
  }
  const size_t size = std::max(chunk.n, kChunkElements);
  for (auto& values : values_) {
    values.resize(std::max(values.size(), size));
  }
  bytes_.resize(std::max(bytes_.size(), size * sizeof(double)));
  for (size_t s = 0; s < count; ++s) {
    const TensorSource& source = sources[s];
    read(
        source.tensor,
        chunk,
        values_[s].data(),
        digests[s],
        as_stored && !source.is_fisher);
    if (source.update != nullptr) {
      add_update(source, chunk, s);
    }
  }
}

template <typename T>
void ChunkReader<T>::read(
    const StoredTensor& source,
    const Chunk& chunk,
    T* to,
    Digest& digest,
    bool as_stored) {
  const DType dtype = source.info().dtype;
  const uint64_t width = dtype_bits(dtype) / 8;
  // Of the type that is calculated with: straight to its place.
  const bool same = dtype == kTypeOf<T> || as_stored;
  const std::span<std::byte> part(
      same ? reinterpret_cast<std::byte*>(to) : bytes_.data(), chunk.n * width);
  source.read(part, chunk.begin * width);
  digest = hash_bytes(part);
  if (!same) {
    convert_from(dtype, part.data(), to, chunk.n);
  }
}

template <typename T>
void ChunkReader<T>::convert_stored(
    std::span<const TensorSource> sources,
    int64_t n) {
  for (size_t s = 0; s < sources.size(); ++s) {
    if (!sources[s].is_fisher) {
      const DType dtype = sources[s].tensor.info().dtype;
      std::memcpy(bytes_.data(), values_[s].data(), n * dtype_bits(dtype) / 8);
      convert_from(dtype, bytes_.data(), values_[s].data(), n);
    }
  }
}

// W (out, in) += scale B A, of the chunk's elements; where W is kept as
// (in, out), its row k is column k of B A: A and B change their places.
template <typename T>
void ChunkReader<T>::add_update(
    const TensorSource& source,
    const Chunk& chunk,
    size_t place) {
  const LoraUpdate& update = *source.update;
  matrices_.resize(std::max(matrices_.size(), place + 1));
  Matrices& matrices = matrices_[place];
  if (matrices.of != &update) {
    matrices = {&update, read_all<T>(update.a), read_all<T>(update.b)};
  }
  const std::vector<T>& a = matrices.a;
  const std::vector<T>& b = matrices.b;
  T* values = values_[place].data();
  const int64_t rank = update.a.info().shape[0];
  const int64_t columns = source.tensor.info().shape[1];
  const auto scale = static_cast<T>(update.scale);
  const auto left = [&](int64_t row, int64_t r) {
    return update.transposed ? a[r * (std::ssize(a) / rank) + row]
                             : b[row * rank + r];
  };
  const auto right = [&](int64_t r, int64_t column) {
    return update.transposed ? b[column * rank + r] : a[r * columns + column];
  };
  sum_.resize(chunk.n);
  for (int64_t i = 0; i < chunk.n;) {
    const int64_t row = (chunk.begin + i) / columns;
    const int64_t column = (chunk.begin + i) % columns;
    const int64_t n = std::min(columns - column, chunk.n - i);
    std::fill_n(sum_.begin(), n, T(0));
    for (int64_t r = 0; r < rank; ++r) {
      const T factor = left(row, r);
      for (int64_t k = 0; k < n; ++k) {
        sum_[k] += factor * right(r, column + k);
      }
    }
    for (int64_t k = 0; k < n; ++k) {
      values[i + k] += scale * sum_[k];
    }
    i += n;
  }
}

template <typename T>
void refuse_value(
    const StoredTensor& tensor,
    T x,
    int64_t index,
    std::string_view why) {
  throw InputError(fmt::format(
      "{}: tensor {} is {} at index {}, {}",
      tensor.file().string(),
      quote(tensor.info().name),
      x,
      index,
      why));
}

template void refuse_value(
    const StoredTensor&,
    float,
    int64_t,
    std::string_view);
template void refuse_value(
    const StoredTensor&,
    double,
    int64_t,
    std::string_view);
template class ChunkReader<float>;
template class ChunkReader<double>;

} // namespace merganser
