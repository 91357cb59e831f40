#include "merge/tensor_merger.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <type_traits>

#include "io/error.h"
#include "io/quote.h"

namespace merganser {
namespace {

template <typename T>
void convert_from(DType dtype, const std::byte* in, T* out, size_t n) {
  if constexpr (std::is_same_v<T, float>) {
    to_float32(dtype, in, out, n);
  } else {
    to_float64(dtype, in, out, n);
  }
}

template <typename T>
void convert_to(DType dtype, const T* in, std::byte* out, size_t n) {
  if constexpr (std::is_same_v<T, float>) {
    from_float32(dtype, in, out, n);
  } else {
    from_float64(dtype, in, out, n);
  }
}

// The least magnitude that rounds to infinity: half a unit in the last place
// above the largest finite number.
template <typename T>
T overflow_bound(DType dtype) {
  if (dtype_bits(dtype) >= static_cast<int>(8 * sizeof(T))) {
    return std::numeric_limits<T>::infinity();
  }
  switch (dtype) {
    case DType::kF16:
      return T(65520);
    case DType::kBF16:
      return T(0x1.ffp127);
    default: // float32 from float64
      return T(0x1.ffffffp127);
  }
}

// The index of the first value that is NaN, negative where it must not be, or
// of magnitude `bound` and more; -1: none. The first loop has no exit, so that
// it runs on vectors.
template <typename T>
int64_t find_bad(
    const std::vector<T>& values,
    int64_t n,
    bool negative,
    T bound) {
  const auto bad = [&](T x) {
    return !(std::abs(x) < bound) || (!negative && x < 0);
  };
  bool any = false;
  for (int64_t i = 0; i < n; ++i) {
    any |= bad(values[i]);
  }
  return any ? std::find_if(values.begin(), values.end(), bad) - values.begin()
             : -1;
}

} // namespace

template <typename T>
TensorMerger<T>::TensorMerger(const MergePlan& plan)
    : plan_(plan),
      weights_(plan.weights.begin(), plan.weights.end()),
      scales_(plan.scales.begin(), plan.scales.end()),
      models_(plan.models.size(), std::vector<T>(kChunkElements)),
      fishers_(plan.fishers.size(), std::vector<T>(kChunkElements)),
      result_(kChunkElements),
      bytes_(kChunkElements * sizeof(double)) {
  if (method_info(plan.recipe.method).needs_base) {
    base_.resize(kChunkElements);
  }
  if (plan.base_fisher) {
    base_fisher_.resize(kChunkElements);
  }
  for (const auto& values : models_) {
    model_pointers_.push_back(values.data());
  }
  for (const auto& values : fishers_) {
    fisher_pointers_.push_back(values.data());
  }
  scalars_ = {
      .count = static_cast<int>(models_.size()),
      .weights = weights_.data(),
      .scales = scales_.data(),
      .base_scale = static_cast<T>(plan.base_scale),
      .delta = static_cast<T>(plan.recipe.delta),
      .clamp = static_cast<T>(plan.recipe.clamp),
      .floor = static_cast<T>(plan.recipe.floor)};
}

template <typename T>
void TensorMerger<T>::load(
    const Checkpoint& source,
    const std::string& name,
    int64_t begin,
    int64_t n,
    bool fisher,
    std::vector<T>& values) {
  const DType dtype = source.find(name)->dtype;
  const size_t width = dtype_bits(dtype) / 8;
  const std::span<std::byte> part(bytes_.data(), n * width);
  source.read(name, part, begin * width);
  convert_from(dtype, part.data(), values.data(), n);

  const int64_t bad = find_bad(
      values, n, /*negative=*/!fisher, std::numeric_limits<T>::infinity());
  if (bad >= 0) {
    throw InputError(fmt::format(
        "{}: tensor {} is {} at index {}, {}",
        source.file_of(name).string(),
        quote(name),
        values[bad],
        begin + bad,
        fisher ? "a Fisher is finite and not negative"
               : "only finite values can be merged"));
  }
}

template <typename T>
std::span<const std::byte> TensorMerger<T>::merge(
    const TensorInfo& output,
    int64_t begin,
    int64_t n,
    int64_t& clamped) {
  const std::string& name = output.name;
  if (!base_.empty()) {
    load(*plan_.base, name, begin, n, false, base_);
  }
  if (!base_fisher_.empty()) {
    load(*plan_.base_fisher, name, begin, n, true, base_fisher_);
  }
  for (size_t t = 0; t < models_.size(); ++t) {
    load(plan_.models[t], name, begin, n, false, models_[t]);
  }
  for (size_t t = 0; t < fishers_.size(); ++t) {
    load(plan_.fishers[t], name, begin, n, true, fishers_[t]);
  }
  const MergeArrays<T> arrays = {
      .base = base_.empty() ? nullptr : base_.data(),
      .base_fisher = base_fisher_.empty() ? nullptr : base_fisher_.data(),
      .models = model_pointers_.data(),
      .fishers = fisher_pointers_.data(),
      .out = result_.data()};
  clamped += merge_elements(plan_.recipe.method, scalars_, arrays, n);

  const int64_t bad =
      find_bad(result_, n, /*negative=*/true, overflow_bound<T>(output.dtype));
  if (bad >= 0) {
    throw InputError(fmt::format(
        "tensor {} would be {} at index {}, which {} cannot hold; choose "
        "another out_dtype or smaller weights",
        quote(name),
        result_[bad],
        begin + bad,
        dtype_name(output.dtype)));
  }
  const size_t width = dtype_bits(output.dtype) / 8;
  convert_to(output.dtype, result_.data(), bytes_.data(), n);
  return std::span(bytes_.data(), n * width);
}

template class TensorMerger<float>;
template class TensorMerger<double>;

} // namespace merganser
