#include "merganser/io/factored_tensor.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "merganser/base/error.h"
#include "merganser/base/quote.h"
#include "merganser/numeric/simd.h"

namespace merganser {
namespace {

using Floats [[gnu::aligned(1), gnu::may_alias]] = float;

std::vector<float> read_means(const StoredTensor& means) {
  const TensorInfo& info = means.info();
  const auto refuse = [&](const std::string& expected) {
    throw InputError(fmt::format(
        "{}: tensor {}: expected {}",
        means.file().string(),
        quote(info.name),
        expected));
  };
  if (info.dtype != DType::kF32) {
    refuse(fmt::format("F32, got {}", dtype_name(info.dtype)));
  }
  std::vector<float> values(info.numel());
  means.read(std::as_writable_bytes(std::span(values)));
  for (const float x : values) {
    if (!(x >= 0) || !std::isfinite(x)) {
      refuse(fmt::format("finite means of at least 0, got {}", x));
    }
  }
  return values;
}

} // namespace

FactoredTensor::FactoredTensor(
    const std::string& name,
    const StoredTensor& row_means,
    const StoredTensor& column_means)
    : file_(row_means.file()),
      rows_(read_means(row_means)),
      columns_(read_means(column_means)) {
  const std::vector<int64_t>& rows = row_means.info().shape;
  const std::vector<int64_t>& columns = column_means.info().shape;
  if (rows.empty() || columns.size() != rows.size() ||
      !std::equal(rows.begin(), rows.end() - 1, columns.begin())) {
    throw InputError(fmt::format(
        "{}: tensor {}: its row means {} and column means {} are not those of "
        "one tensor",
        file_.string(),
        quote(name),
        row_means.info().shape_text(),
        column_means.info().shape_text()));
  }
  info_ = {name, DType::kF32, rows};
  info_.shape.push_back(columns.back());
  static_cast<void>(info_.bytes()); // refuses a size beyond 64 bits
  const int64_t height = std::max<int64_t>(rows.back(), 1);
  for (auto first = rows_.begin(); first != rows_.end(); first += height) {
    const double mean = std::accumulate(first, first + height, 0.0) /
        static_cast<double>(height);
    std::transform(first, first + height, first, [&](float r) {
      return mean > 0 ? static_cast<float>(r / mean) : 0.0F;
    });
  }
  if (!columns_.empty() && !rows_.empty() &&
      !std::isfinite(std::ranges::max(rows_) * std::ranges::max(columns_))) {
    throw InputError(fmt::format(
        "{}: tensor {}: the product of its row and column means overflows",
        file_.string(),
        quote(name)));
  }
}

uint64_t FactoredTensor::stored_bytes() const {
  return (rows_.size() + columns_.size()) * sizeof(float);
}

void FactoredTensor::read(std::span<std::byte> out, int64_t begin) const {
  if (out.empty()) {
    return;
  }
  const int64_t height = info_.shape[info_.shape.size() - 2];
  const int64_t width = info_.shape.back();
  const auto end = begin + static_cast<int64_t>(out.size() / sizeof(float));
  auto* __restrict to = reinterpret_cast<Floats*>(out.data());
  widest([&] {
    for (int64_t i = begin; i < end;) {
      const int64_t row = i / width; // of all matrices
      const int64_t n = std::min((row + 1) * width, end) - i;
      const float r = rows_[row];
      const float* c = &columns_[row / height * width + i % width];
      for (int64_t k = 0; k < n; ++k) {
        to[k] = r * c[k];
      }
      to += n;
      i += n;
    }
  });
}

} // namespace merganser
