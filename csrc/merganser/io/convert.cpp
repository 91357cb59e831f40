#include <bit>
#include <cstring>

#include <fmt/format.h>

#include "merganser/base/error.h"
#include "merganser/io/dtype.h"
#include "merganser/numeric/half.h"
#include "merganser/numeric/simd.h"

namespace merganser {

namespace {

static_assert(
    std::endian::native == std::endian::little,
    "tensors are stored as in the memory of little-endian machines");

// The arrays may be unaligned and do not overlap. Since the compiler knows that
// and the function, it vectorizes the loop.
template <typename T>
using Unaligned [[gnu::aligned(1), gnu::may_alias]] = T;

template <typename In, typename Out, auto kFunction>
void map(const void* in, void* out, size_t n) {
  const auto* __restrict source = static_cast<const Unaligned<In>*>(in);
  auto* __restrict target = static_cast<Unaligned<Out>*>(out);
  widest([&] {
    for (size_t i = 0; i < n; ++i) {
      target[i] = kFunction(source[i]);
    }
  });
}

void copy(const void* in, void* out, size_t size) {
  if (size != 0) { // the pointers may be null
    std::memcpy(out, in, size);
  }
}

[[noreturn]] void refuse(DType dtype) {
  throw Error(fmt::format(
      "cannot compute with {}; expected F16, BF16, F32 or F64",
      dtype_name(dtype)));
}

template <typename Float>
void widen(DType dtype, const std::byte* in, Float* out, size_t n) {
  switch (dtype) {
    case DType::kF16:
      return map<uint16_t, Float, float_from_f16>(in, out, n);
    case DType::kBF16:
      return map<uint16_t, Float, float_from_bf16>(in, out, n);
    case DType::kF32:
      return map<float, Float, [](float x) { return static_cast<Float>(x); }>(
          in, out, n);
    case DType::kF64:
      return map<double, Float, [](double x) { return static_cast<Float>(x); }>(
          in, out, n);
    default:
      refuse(dtype);
  }
}

} // namespace

void to_float32(DType dtype, const std::byte* in, float* out, size_t n) {
  if (dtype == DType::kF32) {
    return copy(in, out, n * sizeof(float));
  }
  widen(dtype, in, out, n);
}

void to_float64(DType dtype, const std::byte* in, double* out, size_t n) {
  if (dtype == DType::kF64) {
    return copy(in, out, n * sizeof(double));
  }
  widen(dtype, in, out, n);
}

void from_float32(DType dtype, const float* in, std::byte* out, size_t n) {
  switch (dtype) {
    case DType::kF16:
      return map<float, uint16_t, f16_from_float>(in, out, n);
    case DType::kBF16:
      return map<float, uint16_t, bf16_from_float>(in, out, n);
    case DType::kF32:
      return copy(in, out, n * sizeof(float));
    case DType::kF64:
      return map<float, double, [](float x) { return static_cast<double>(x); }>(
          in, out, n);
    default:
      refuse(dtype);
  }
}

void from_float64(DType dtype, const double* in, std::byte* out, size_t n) {
  switch (dtype) {
    case DType::kF16:
      return map<double, uint16_t, [](double x) {
        return f16_from_float(narrow_to_odd(x));
      }>(in, out, n);
    case DType::kBF16:
      return map<double, uint16_t, [](double x) {
        return bf16_from_float(narrow_to_odd(x));
      }>(in, out, n);
    case DType::kF32:
      return map<double, float, [](double x) { return static_cast<float>(x); }>(
          in, out, n);
    case DType::kF64:
      return copy(in, out, n * sizeof(double));
    default:
      refuse(dtype);
  }
}

} // namespace merganser
