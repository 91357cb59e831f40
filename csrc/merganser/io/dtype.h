#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

#include "merganser/base/api.h"

namespace merganser {

// The element types of the safetensors format, in its order. F4 and F6 are
// packed: their width is not a whole number of bytes.
enum class DType : uint8_t {
  kBool,
  kF4,
  kF6E2M3,
  kF6E3M2,
  kU8,
  kI8,
  kF8E5M2,
  kF8E4M3,
  kF8E8M0,
  kF8E4M3FNUZ,
  kF8E5M2FNUZ,
  kI16,
  kU16,
  kF16,
  kBF16,
  kI32,
  kU32,
  kF32,
  kC64,
  kF64,
  kI64,
  kU64,
};

// Width in bits.
MERGANSER_API int dtype_bits(DType dtype);

// The name in a safetensors header ("BF16").
MERGANSER_API std::string_view dtype_name(DType dtype);

// The inverse. find_dtype returns nullopt and parse_dtype throws InputError for
// an unknown name.
MERGANSER_API std::optional<DType> find_dtype(std::string_view name);
MERGANSER_API DType parse_dtype(std::string_view name);

// True for the types that a formula merges (F16, BF16, F32, F64); all others
// must agree or are copied.
MERGANSER_API bool is_mergeable(DType dtype);

// Convert n elements of a mergeable type, which may be unaligned. Round once,
// to nearest even; keep subnormals, infinities and NaN; overflow to infinity.
// Throw Error for any other type.
MERGANSER_API void to_float32(
    DType dtype,
    const std::byte* in,
    float* out,
    size_t n);
MERGANSER_API void to_float64(
    DType dtype,
    const std::byte* in,
    double* out,
    size_t n);
MERGANSER_API void from_float32(
    DType dtype,
    const float* in,
    std::byte* out,
    size_t n);
MERGANSER_API void from_float64(
    DType dtype,
    const double* in,
    std::byte* out,
    size_t n);

} // namespace merganser
