#pragma once

// The parts of CUDA's header of this name that the kernels use, emulated.

#include "merganser/numeric/half.h"

struct __half {
  uint16_t bits;

  __half() = default;
  __half(float x) : bits(merganser::f16_from_float(x)) {}
};

inline float __half2float(__half x) {
  return merganser::float_from_f16(x.bits);
}

inline __half __float2half_rn(float x) {
  return x;
}
