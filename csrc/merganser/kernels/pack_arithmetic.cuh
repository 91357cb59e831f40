#pragma once

// Arithmetic on packs, element by element: the vector operations that
// numeric/merge_formula.h uses. Included by .cu files only.

#include "merganser/kernels/vectors.cuh"
#include "merganser/numeric/host_device.h"

namespace merganser::kernels {

template <typename F, typename T, int N>
MERGANSER_HOST_DEVICE auto zip(const Pack<T, N>& a, const Pack<T, N>& b, F f) {
  Pack<decltype(f(a.value[0], b.value[0])), N> result;
  for (int k = 0; k < N; ++k) {
    result.value[k] = f(a.value[k], b.value[k]);
  }
  return result;
}

template <int N, typename T>
MERGANSER_HOST_DEVICE Pack<T, N> fill(T x) {
  Pack<T, N> result;
  for (int k = 0; k < N; ++k) {
    result.value[k] = x;
  }
  return result;
}

#define MERGANSER_PACK_OPERATOR(op)                                  \
  template <typename T, int N>                                       \
  MERGANSER_HOST_DEVICE auto operator op(                            \
      const Pack<T, N>& a, const Pack<T, N>& b) {                    \
    return zip(a, b, [](T x, T y) { return x op y; });               \
  }                                                                  \
  template <typename T, int N>                                       \
  MERGANSER_HOST_DEVICE auto operator op(const Pack<T, N>& a, T b) { \
    return a op fill<N>(b);                                          \
  }                                                                  \
  template <typename T, int N>                                       \
  MERGANSER_HOST_DEVICE auto operator op(T a, const Pack<T, N>& b) { \
    return fill<N>(a) op b;                                          \
  }
MERGANSER_PACK_OPERATOR(+)
MERGANSER_PACK_OPERATOR(-)
MERGANSER_PACK_OPERATOR(*)
MERGANSER_PACK_OPERATOR(/)
MERGANSER_PACK_OPERATOR(<)
MERGANSER_PACK_OPERATOR(<=)
MERGANSER_PACK_OPERATOR(>=)
MERGANSER_PACK_OPERATOR(==)
#undef MERGANSER_PACK_OPERATOR

template <typename T, int N>
MERGANSER_HOST_DEVICE Pack<T, N>& operator+=(
    Pack<T, N>& a,
    const Pack<T, N>& b) {
  return a = a + b;
}

template <typename T, int N>
MERGANSER_HOST_DEVICE Pack<T, N>& operator-=(
    Pack<T, N>& a,
    const Pack<T, N>& b) {
  return a = a - b;
}

template <typename T, int N>
MERGANSER_HOST_DEVICE Pack<T, N> select(
    const Pack<bool, N>& mask,
    const Pack<T, N>& yes,
    const Pack<T, N>& no) {
  Pack<T, N> result;
  for (int k = 0; k < N; ++k) {
    result.value[k] = mask.value[k] ? yes.value[k] : no.value[k];
  }
  return result;
}

} // namespace merganser::kernels
