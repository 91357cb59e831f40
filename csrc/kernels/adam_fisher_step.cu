#include "kernels/elementwise.cuh"
#include "kernels/kernels.h"

namespace merganser::kernels {
namespace {

template <bool kFisher, typename T, typename In>
struct AdamFisherStep {
  const In* __restrict__ grad;
  T* __restrict__ param;
  T* __restrict__ exp_avg;
  T* __restrict__ exp_avg_sq;
  T* __restrict__ fisher;
  AdamScalars<T> scalars;

  template <int N>
  bool aligned() const {
    return is_aligned<N>(grad) && is_aligned<N>(param) &&
        is_aligned<N>(exp_avg) && is_aligned<N>(exp_avg_sq) &&
        is_aligned<N>(fisher);
  }

  template <int N>
  __device__ void run(int64_t i) const {
    const Pack<In, N> g = load<N>(grad + i);
    Pack<T, N> p = load<N>(param + i);
    Pack<T, N> m = load<N>(exp_avg + i);
    Pack<T, N> v = load<N>(exp_avg_sq + i);
    Pack<T, N> f;
    if constexpr (kFisher) {
      f = load<N>(fisher + i);
    }
#pragma unroll
    for (int k = 0; k < N; ++k) {
      const T square = adam_element<T>(
          scalars, widen(g.value[k]), p.value[k], m.value[k], v.value[k]);
      if constexpr (kFisher) {
        f.value[k] += square * scalars.fisher_weight;
      }
    }
    store(param + i, p);
    store(exp_avg + i, m);
    store(exp_avg_sq + i, v);
    if constexpr (kFisher) {
      store(fisher + i, f);
    }
  }
};

} // namespace

template <typename T, typename In>
void launch_adam_fisher_step(
    const In* grad,
    T* param,
    T* exp_avg,
    T* exp_avg_sq,
    T* fisher,
    int64_t n,
    const AdamScalars<T>& scalars,
    cudaStream_t stream) {
  if (fisher) {
    launch_elementwise<T>(
        n,
        AdamFisherStep<true, T, In>{
            grad, param, exp_avg, exp_avg_sq, fisher, scalars},
        stream);
  } else {
    launch_elementwise<T>(
        n,
        AdamFisherStep<false, T, In>{
            grad, param, exp_avg, exp_avg_sq, nullptr, scalars},
        stream);
  }
}

#define INSTANTIATE(T, In)               \
  template void launch_adam_fisher_step( \
      const In*,                         \
      T*,                                \
      T*,                                \
      T*,                                \
      T*,                                \
      int64_t,                           \
      const AdamScalars<T>&,             \
      cudaStream_t);
INSTANTIATE(float, float)
INSTANTIATE(float, __nv_bfloat16)
INSTANTIATE(float, __half)
INSTANTIATE(double, double)

} // namespace merganser::kernels
