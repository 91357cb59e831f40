// One thread updates N neighbouring elements of the Fisher (elementwise.cuh).

#include "merganser/kernels/elementwise.cuh"
#include "merganser/kernels/kernels.h"

namespace merganser::kernels {
namespace {

template <typename T, typename In>
struct SquareAccumulate {
  const In* __restrict__ grad;
  T* __restrict__ fisher;
  int64_t n;
  T weight;

  template <int N>
  __device__ bool aligned() const {
    return is_aligned<N>(grad) && is_aligned<N>(fisher);
  }

  template <int N>
  __device__ void run(int64_t i) const {
    const Pack<In, N> g = load<N>(grad + i);
    Pack<T, N> f = load<N>(fisher + i);
#pragma unroll
    for (int k = 0; k < N; ++k) {
      const T x = widen(g.value[k]);
      f.value[k] += x * x * weight;
    }
    store(fisher + i, f);
  }
};

} // namespace

template <typename T, typename In>
void launch_square_accumulate(
    const In* grad,
    T* fisher,
    int64_t n,
    T weight,
    cudaStream_t stream) {
  const SquareAccumulate<T, In> tensor{grad, fisher, n, weight};
  launch_elementwise<16 / sizeof(T), SquareAccumulate<T, In>>(
      &tensor, 1, stream);
}

#define INSTANTIATE(T, In)                \
  template void launch_square_accumulate( \
      const In*, T*, int64_t, T, cudaStream_t);
INSTANTIATE(float, float)
INSTANTIATE(float, __nv_bfloat16)
INSTANTIATE(float, __half)
INSTANTIATE(double, double)

} // namespace merganser::kernels
