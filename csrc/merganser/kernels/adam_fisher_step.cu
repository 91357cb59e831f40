// One thread updates N neighbouring elements of a parameter, its moments and
// its Fisher (elementwise.cuh).

#include "merganser/kernels/elementwise.cuh"
#include "merganser/kernels/kernels.h"

namespace merganser::kernels {
namespace {

template <typename T, typename In>
struct AdamFisherStep : AdamTensor<T, In> {
  template <int N>
  __device__ bool aligned() const {
    return is_aligned<N>(this->grad) && is_aligned<N>(this->param) &&
        is_aligned<N>(this->exp_avg) && is_aligned<N>(this->exp_avg_sq) &&
        is_aligned<N>(this->fisher);
  }

  template <int N>
  __device__ void run(int64_t i) const {
    const Pack<In, N> g = load<N>(this->grad + i);
    Pack<T, N> p = load<N>(this->param + i);
    Pack<T, N> m = load<N>(this->exp_avg + i);
    Pack<T, N> v = load<N>(this->exp_avg_sq + i);
    Pack<T, N> f{};
    if (this->fisher) {
      f = load<N>(this->fisher + i);
    }
#pragma unroll
    for (int k = 0; k < N; ++k) {
      const T square = adam_element<T>(
          this->scalars, widen(g.value[k]), p.value[k], m.value[k], v.value[k]);
      f.value[k] += square * this->scalars.fisher_weight;
    }
    store(this->param + i, p);
    store(this->exp_avg + i, m);
    store(this->exp_avg_sq + i, v);
    if (this->fisher) {
      store(this->fisher + i, f);
    }
  }
};

} // namespace

template <typename T, typename In>
void launch_adam_fisher_step(
    const AdamTensor<T, In>* tensors,
    int64_t count,
    cudaStream_t stream) {
  launch_elementwise<16 / sizeof(T), AdamFisherStep<T, In>>(
      tensors, count, stream);
}

#define INSTANTIATE(T, In)               \
  template void launch_adam_fisher_step( \
      const AdamTensor<T, In>*, int64_t, cudaStream_t);
INSTANTIATE(float, float)
INSTANTIATE(float, __nv_bfloat16)
INSTANTIATE(float, __half)
INSTANTIATE(double, double)

} // namespace merganser::kernels
