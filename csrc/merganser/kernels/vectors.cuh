#pragma once

// 16-byte loads and stores of N neighbouring elements, and conversion to the
// type of the computation. Included by .cu files only.

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

#include "merganser/numeric/host_device.h"

namespace merganser::kernels {

template <typename T, int N>
struct alignas(sizeof(T) * N) Pack {
  T value[N];
};

template <int N, typename T>
__device__ Pack<T, N> load(const T* pointer) {
  return *reinterpret_cast<const Pack<T, N>*>(pointer);
}

template <int N, typename T>
__device__ void store(T* pointer, const Pack<T, N>& pack) {
  *reinterpret_cast<Pack<T, N>*>(pointer) = pack;
}

__device__ inline float widen(float x) {
  return x;
}
__device__ inline double widen(double x) {
  return x;
}
__device__ inline float widen(__nv_bfloat16 x) {
  return __bfloat162float(x);
}
__device__ inline float widen(__half x) {
  return __half2float(x);
}

template <int N, typename T>
MERGANSER_HOST_DEVICE bool is_aligned(const T* pointer) {
  return reinterpret_cast<uintptr_t>(pointer) % (sizeof(T) * N) == 0;
}

// True if the rows of arrays (..., width) can be read N elements at a time.
template <int N, typename... T>
bool rows_aligned(int64_t width, const T*... arrays) {
  return width % N == 0 && (is_aligned<N>(arrays) && ...);
}

} // namespace merganser::kernels
