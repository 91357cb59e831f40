#include "merganser/merge/value_errors.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

#include "merganser/base/error.h"
#include "merganser/base/quote.h"
#include "merganser/merge/arithmetic.h"

namespace merganser {
namespace {

void check_finite_all(const StoredTensor& tensor, std::string_view why) {
  std::vector<std::byte> data(tensor.info().bytes());
  tensor.read(data);
  check_finite(tensor, data, 0, /*allow_nonfinite=*/false, why);
}

} // namespace

template <typename T>
void refuse_value(
    const StoredTensor& tensor,
    T x,
    int64_t index,
    std::string_view why) {
  throw InputError(fmt::format(
      "{}: tensor {} is {} at index {}; {}",
      tensor.file().string(),
      quote(tensor.info().name),
      x,
      index,
      why));
}

int64_t check_finite(
    const StoredTensor& tensor,
    std::span<const std::byte> data,
    int64_t begin,
    bool allow_nonfinite,
    std::string_view why) {
  const DType dtype = tensor.info().dtype;
  if (!is_mergeable(dtype)) {
    return 0;
  }
  const size_t width = dtype_bits(dtype) / 8;
  const size_t n = data.size() / width;
  std::array<double, 1024> values;
  int64_t count = 0;
  for (size_t i = 0; i < n; i += values.size()) {
    const size_t part = std::min(values.size(), n - i);
    to_float64(dtype, &data[i * width], values.data(), part);
    for (size_t k = 0; k < part; ++k) {
      if (std::isfinite(values[k])) {
        continue;
      }
      if (!allow_nonfinite) {
        refuse_value(
            tensor, values[k], begin + static_cast<int64_t>(i + k), why);
      }
      ++count;
    }
  }
  return count;
}

void check_update(const TensorSource& source) {
  if (source.update != nullptr) {
    const char* why = "an adapter must be finite";
    check_finite_all(source.update->a, why);
    check_finite_all(source.update->b, why);
  }
}

template <typename T>
void check_scaled_fisher(
    const StoredTensor& fisher,
    std::span<const T> values,
    int64_t begin,
    T scale,
    bool normalized) {
  for (size_t i = 0; i < values.size(); ++i) {
    if (std::isfinite(scale * values[i])) {
      continue;
    }
    throw InputError(fmt::format(
        "{}: tensor {} is {} at index {}; times {} {} it overflows {}; set "
        "dtype: float64 (and the out_dtype that you want) in the recipe{}",
        fisher.file().string(),
        quote(fisher.info().name),
        values[i],
        begin + static_cast<int64_t>(i),
        scale,
        normalized ? "(one over its mean)" : "examples",
        dtype_name(kTypeOf<T>),
        normalized ? "" : ", or normalize_fishers: true in its parameters"));
  }
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
template void check_scaled_fisher(
    const StoredTensor&,
    std::span<const float>,
    int64_t,
    float,
    bool);
template void check_scaled_fisher(
    const StoredTensor&,
    std::span<const double>,
    int64_t,
    double,
    bool);

} // namespace merganser
