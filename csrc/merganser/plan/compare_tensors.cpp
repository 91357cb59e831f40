#include "merganser/plan/compare_tensors.h"

#include <algorithm>
#include <cstring>

#include "merganser/io/header_only.h"

namespace merganser {
namespace {

constexpr uint64_t kPart = uint64_t{1} << 18; // elements
constexpr uint64_t kFirstPart = 1024; // most differ in it

// Calls same(begin, n) for ranges of elements until it returns false.
bool all_parts(uint64_t numel, const auto& same) {
  for (uint64_t begin = 0; begin < numel;) {
    const uint64_t n = std::min(begin == 0 ? kFirstPart : kPart, numel - begin);
    if (!same(begin, n)) {
      return false;
    }
    begin += n;
  }
  return true;
}

std::vector<std::byte> read_part(
    const StoredTensor& tensor,
    uint64_t begin,
    uint64_t n) {
  const uint64_t bits = dtype_bits(tensor.info().dtype);
  std::vector<std::byte> bytes(n * bits / 8);
  tensor.read(bytes, begin * bits / 8);
  return bytes;
}

std::vector<double> read_values(
    const StoredTensor& tensor,
    uint64_t begin,
    uint64_t n) {
  const auto bytes = read_part(tensor, begin, n);
  std::vector<double> values(n);
  to_float64(tensor.info().dtype, bytes.data(), values.data(), n);
  return values;
}

bool has_values(const StoredTensor& tensor) {
  return !whole_size(tensor.file());
}

} // namespace

bool same_bytes(const StoredTensor& x, const StoredTensor& y) {
  return is_like(x.info(), y.info()) &&
      (!has_values(x) || !has_values(y) ||
       all_parts(x.info().numel(), [&](uint64_t begin, uint64_t n) {
         return read_part(x, begin, n) == read_part(y, begin, n);
       }));
}

bool same_values(const StoredTensor& x, const StoredTensor& y) {
  if (!is_mergeable(x.info().dtype) || !is_mergeable(y.info().dtype)) {
    return same_bytes(x, y);
  }
  return x.info().shape == y.info().shape &&
      (!has_values(x) || !has_values(y) ||
       all_parts(x.info().numel(), [&](uint64_t begin, uint64_t n) {
         return read_values(x, begin, n) == read_values(y, begin, n);
       }));
}

bool is_uniform(const StoredTensor& x) {
  if (!has_values(x)) {
    return true;
  }
  const uint64_t width = dtype_bits(x.info().dtype) / 8;
  const auto first = read_part(x, 0, std::min<uint64_t>(1, x.info().numel()));
  return all_parts(x.info().numel(), [&](uint64_t begin, uint64_t n) {
    const auto bytes = read_part(x, begin, n);
    for (uint64_t i = 0; i < n; ++i) {
      if (std::memcmp(&bytes[i * width], first.data(), width) != 0) {
        return false;
      }
    }
    return true;
  });
}

bool is_like(const TensorInfo& a, const TensorInfo& b) {
  return a.dtype == b.dtype && a.shape == b.shape;
}

bool is_copy(
    const NamedCheckpoint& model,
    const TensorInfo& tensor,
    const Checkpoint& reference) {
  const StoredTensor data = model.file.at(tensor.name);
  return std::ranges::any_of(
      model.file.tensors(), [&](const TensorInfo& other) {
        return other.name != tensor.name && is_like(tensor, other) &&
            reference.find(model.name_of(other)) != nullptr &&
            same_bytes(data, model.file.at(other.name)) &&
            (may_be_tied(tensor.name, other.name) || !is_uniform(data));
      });
}

} // namespace merganser
