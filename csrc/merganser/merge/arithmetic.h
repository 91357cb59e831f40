#pragma once

#include <limits>
#include <type_traits>

#include "merganser/io/dtype.h"

// The two types of merge arithmetic, float and double, under one name.
namespace merganser {

template <typename T>
inline constexpr DType kTypeOf =
    std::is_same_v<T, float> ? DType::kF32 : DType::kF64;

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

// The smallest magnitude that rounds to infinity: half a unit in the last place
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

} // namespace merganser
