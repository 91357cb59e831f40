// What biases and the weights of LayerNorms share: a sum over the tokens of
// each example, squared, and then added up over the examples. Two kernels, so
// that many blocks work at once and every sum still has one order.

#include <algorithm>

#include "kernels/kernels.h"
#include "kernels/vectors.cuh"

namespace merganser::kernels {
namespace {

constexpr int kChannels = 32; // per block: a row of a warp
constexpr int kRows = 8; // tokens that a block sums at a time
constexpr int64_t kMaxGridY = 65535;

// Thread (x, y) sums channel x over the tokens y, y + kRows, ...; the first row
// adds the kRows parts up in order.
template <typename T, typename In>
__global__ void __launch_bounds__(kChannels* kRows) token_sum_squares_kernel(
    const In* __restrict__ grad_output,
    const In* __restrict__ normalized,
    T* __restrict__ squares,
    int64_t examples,
    int64_t tokens,
    int64_t channels) {
  __shared__ T parts[kRows][kChannels];
  const int64_t c = int64_t{blockIdx.x} * kChannels + threadIdx.x;
  for (int64_t i = blockIdx.y; i < examples; i += gridDim.y) {
    T sum = 0;
    if (c < channels) {
      for (int64_t l = threadIdx.y; l < tokens; l += kRows) {
        const int64_t k = (i * tokens + l) * channels + c;
        const T d = widen(grad_output[k]);
        sum += normalized ? d * T(widen(normalized[k])) : d;
      }
    }
    parts[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.y == 0 && c < channels) {
      for (int r = 1; r < kRows; ++r) {
        sum += parts[r][threadIdx.x];
      }
      squares[i * channels + c] = sum * sum;
    }
    __syncthreads();
  }
}

// One thread adds up one channel.
template <typename T>
__global__ void __launch_bounds__(kChannels) add_examples_kernel(
    const T* __restrict__ squares,
    T* __restrict__ fisher,
    int64_t examples,
    int64_t channels,
    T weight) {
  const int64_t c = int64_t{blockIdx.x} * kChannels + threadIdx.x;
  if (c < channels) {
    T sum = fisher[c];
    for (int64_t i = 0; i < examples; ++i) {
      sum += squares[i * channels + c] * weight;
    }
    fisher[c] = sum;
  }
}

unsigned channel_blocks(int64_t channels) {
  return static_cast<unsigned>((channels + kChannels - 1) / kChannels);
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
  const dim3 blocks(
      channel_blocks(channels),
      static_cast<unsigned>(std::min(examples, kMaxGridY)));
  token_sum_squares_kernel<<<blocks, dim3(kChannels, kRows), 0, stream>>>(
      grad_output, normalized, squares, examples, tokens, channels);
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
  add_examples_kernel<<<channel_blocks(channels), kChannels, 0, stream>>>(
      squares, fisher, examples, channels, weight);
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
