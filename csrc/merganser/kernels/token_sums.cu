// Shared by biases and LayerNorm weights: sums over the tokens of each example,
// squared and added up over the examples. Two kernels, so that many blocks run
// at once and each sum has one order.

#include "merganser/kernels/device.cuh"
#include "merganser/kernels/kernels.h"
#include "merganser/kernels/vectors.cuh"
#include "merganser/numeric/block_count.h"

namespace merganser::kernels {
namespace {

constexpr int kLanes = 16; // neighbouring threads: 256 bytes of a token
constexpr int kRows = 16; // tokens that a block adds at a time
constexpr int kThreads = kLanes * kRows;

template <typename T, int N>
struct Parts {
  Pack<T, N> sum[kRows][kLanes];
};

// Thread (x, y) sums channels N x to N x + N - 1 over the tokens y, y + kRows,
// ...; then one thread per channel adds the kRows parts in order.
template <int N, typename T, typename In>
__global__ void __launch_bounds__(kThreads) token_sum_squares_kernel(
    const In* __restrict__ grad_output,
    const In* __restrict__ normalized,
    T* __restrict__ squares,
    int64_t examples,
    int64_t tokens,
    int64_t channels) {
  Parts<T, N>& parts = block_shared<Parts<T, N>>();
  const int64_t first = int64_t{blockIdx.x} * kLanes * N;
  const int64_t c = first + threadIdx.x * N;
  const int own = threadIdx.y * kLanes + threadIdx.x;
  for (int64_t i = blockIdx.y; i < examples; i += gridDim.y) {
    Pack<T, N> sum{};
    if (c < channels) {
#pragma unroll 4
      for (int64_t l = threadIdx.y; l < tokens; l += kRows) {
        const int64_t k = (i * tokens + l) * channels + c;
        const Pack<In, N> d = load<N>(grad_output + k);
        const Pack<In, N> x = normalized ? load<N>(normalized + k) : d;
#pragma unroll
        for (int j = 0; j < N; ++j) {
          const T dj = widen(d.value[j]);
          sum.value[j] += normalized ? dj * T(widen(x.value[j])) : dj;
        }
      }
    }
    parts.sum[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    if (own < kLanes * N && first + own < channels) {
      T total = 0;
      for (int r = 0; r < kRows; ++r) {
        total += parts.sum[r][own / N].value[own % N];
      }
      squares[i * channels + first + own] = total * total;
    }
    __syncthreads();
  }
}

// One thread adds the examples of one channel.
template <typename T>
__global__ void __launch_bounds__(kThreads) add_examples_kernel(
    const T* __restrict__ squares,
    T* __restrict__ fisher,
    int64_t examples,
    int64_t channels,
    T weight) {
  const int64_t stride = int64_t{gridDim.x} * kThreads;
  for (int64_t c = int64_t{blockIdx.x} * kThreads + threadIdx.x; c < channels;
       c += stride) {
    T sum = fisher[c];
#pragma unroll 8
    for (int64_t i = 0; i < examples; ++i) {
      sum += squares[i * channels + c] * weight;
    }
    fisher[c] = sum;
  }
}

} // namespace

template <typename T, typename In>
void launch_token_sum_squares(
    const In* grad_output,
    const In* normalized,
    T* squares,
    int64_t examples,
    int64_t tokens,
    int64_t channels,
    cudaStream_t stream) {
  if (examples == 0 || channels == 0) {
    return;
  }
  constexpr int kPack = 16 / sizeof(In);
  const bool packed = rows_aligned<kPack>(channels, grad_output, normalized);
  launch(
      {dim3(
           block_for_each(channels, kLanes * (packed ? kPack : 1)),
           block_count(examples, 1)),
       dim3(kLanes, kRows),
       stream},
      packed ? &token_sum_squares_kernel<kPack, T, In>
             : &token_sum_squares_kernel<1, T, In>,
      grad_output,
      normalized,
      squares,
      examples,
      tokens,
      channels);
}

template <typename T>
void launch_add_examples(
    const T* squares,
    T* fisher,
    int64_t examples,
    int64_t channels,
    T weight,
    cudaStream_t stream) {
  if (examples == 0 || channels == 0) {
    return;
  }
  launch(
      {block_count(channels, kThreads), kThreads, stream},
      add_examples_kernel<T>,
      squares,
      fisher,
      examples,
      channels,
      weight);
}

#define INSTANTIATE(T, In)                \
  template void launch_token_sum_squares( \
      const In*, const In*, T*, int64_t, int64_t, int64_t, cudaStream_t);
INSTANTIATE(float, float)
INSTANTIATE(float, __nv_bfloat16)
INSTANTIATE(float, __half)
INSTANTIATE(double, double)

template void launch_add_examples(
    const float*,
    float*,
    int64_t,
    int64_t,
    float,
    cudaStream_t);
template void launch_add_examples(
    const double*,
    double*,
    int64_t,
    int64_t,
    double,
    cudaStream_t);

} // namespace merganser::kernels
