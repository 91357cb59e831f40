#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "merganser/plan/tensor_plan.h"

// InputErrors about single values: each names the file, the tensor and the
// index in it, and says why the value is refused.
namespace merganser {

template <typename T>
[[noreturn]] void refuse_value(
    const StoredTensor& tensor,
    T x,
    int64_t index,
    std::string_view why);

// Counts the values that are not finite among `data`, a tensor's elements from
// `begin` on as they are stored. Unless allow_nonfinite, throws for the first
// one. Integers count as finite.
int64_t check_finite(
    const StoredTensor& tensor,
    std::span<const std::byte> data,
    int64_t begin,
    bool allow_nonfinite,
    std::string_view why);

// Throws if the source has an adapter with a value that is not finite.
void check_update(const TensorSource& source);

// Throws for the first element of a Fisher whose product with `scale` overflows
// T; `values` are its elements from `begin` on. `normalized`: scale is one over
// the Fisher's mean instead of N.
template <typename T>
void check_scaled_fisher(
    const StoredTensor& fisher,
    std::span<const T> values,
    int64_t begin,
    T scale,
    bool normalized);

} // namespace merganser
