#include "merganser/merge/chunk_reader.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "merganser/merge/arithmetic.h"
#include "merganser/numeric/simd.h"

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

// Transposes a matrix with `rows` rows.
template <typename T>
std::vector<T> transposed(const std::vector<T>& matrix, int64_t rows) {
  const int64_t columns = std::ssize(matrix) / rows;
  std::vector<T> result(matrix.size());
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = 0; j < columns; ++j) {
      result[j * rows + i] = matrix[i * columns + j];
    }
  }
  return result;
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
    if (source.power != 1) {
      raise(values_[s].data(), chunk.n, source.power);
    }
    if (source.update != nullptr && chunk.n > 0) {
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
  // Values in the type of the arithmetic are read straight to their place.
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

// Negative values stay, for the checks that refuse them.
template <typename T>
void ChunkReader<T>::raise(T* values, int64_t n, double power) const {
  const auto p = static_cast<T>(power);
  for (int64_t i = 0; i < n; ++i) {
    values[i] = values[i] < 0 ? values[i] : std::pow(values[i], p);
  }
}

// Adds scale B A to the chunk's elements of W (out, in), or scale (B A)^T where
// W is stored as (in, out).
template <typename T>
void ChunkReader<T>::add_update(
    const TensorSource& source,
    const Chunk& chunk,
    size_t place) {
  const LoraUpdate& update = *source.update;
  const int64_t rank = update.a.info().shape[0];
  matrices_.resize(std::max(matrices_.size(), place + 1));
  Matrices& matrices = matrices_[place];
  if (matrices.of != &update) {
    matrices = {&update, read_all<T>(update.b), read_all<T>(update.a)};
    if (update.transposed) {
      std::swap(matrices.left, matrices.right);
      matrices.left = transposed(matrices.left, rank);
      matrices.right =
          transposed(matrices.right, std::ssize(matrices.right) / rank);
    }
  }
  const int64_t columns = source.tensor.info().shape[1];
  const auto scale = static_cast<T>(update.scale);
  sum_.resize(chunk.n);
  for (int64_t i = 0; i < chunk.n;) {
    const int64_t row = (chunk.begin + i) / columns;
    const int64_t column = (chunk.begin + i) % columns;
    const int64_t n = std::min(columns - column, chunk.n - i);
    const T* left = &matrices.left[row * rank];
    const T* right = &matrices.right[column];
    T* sum = sum_.data();
    T* values = &values_[place][i];
    widest([=] {
      std::fill_n(sum, n, T(0));
      for (int64_t r = 0; r < rank; ++r) {
        for (int64_t k = 0; k < n; ++k) {
          sum[k] += left[r] * right[r * columns + k];
        }
      }
      for (int64_t k = 0; k < n; ++k) {
        values[k] += scale * sum[k];
      }
    });
    i += n;
  }
}

template class ChunkReader<float>;
template class ChunkReader<double>;

} // namespace merganser
