#pragma once

// The parts of CUDA's header of this name that the kernels use, emulated.

#include "merganser/numeric/half.h"

struct __nv_bfloat16 {
  uint16_t bits;

  __nv_bfloat16() = default;
  __nv_bfloat16(float x) : bits(merganser::bf16_from_float(x)) {}
};

inline float __bfloat162float(__nv_bfloat16 x) {
  return merganser::float_from_bf16(x.bits);
}

inline __nv_bfloat16 __float2bfloat16_rn(float x) {
  return x;
}
