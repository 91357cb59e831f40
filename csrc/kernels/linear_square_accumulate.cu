// One block owns a tile of 64 x 64 elements of the Fisher, one thread 4 x 4 of
// them, for all examples. Per example, the product over its tokens adds up in
// registers from slices of 16 tokens in shared memory, and is squared there:
// it is never written to memory.
//
//              input (L, 64)               thread (x, y) of 16 x 16 owns rows
//           +-----------------+            y, y + 16, ... and columns x, x +
//           16,
//   output  |  4 x 4 sums per |            ...: neighbouring threads touch
//   (L, 64) |  thread         |            neighbouring columns.

#include "kernels/kernels.h"
#include "kernels/vectors.cuh"

namespace merganser::kernels {
namespace {

constexpr int kTile = 64;
constexpr int kSlice = 16; // tokens in shared memory
constexpr int kSide = 16; // threads along each side of the tile
constexpr int kSums = kTile / kSide;

// shared (kSlice, kTile) = matrix (tokens, width) from (token, column) on,
// zeros beyond its ends.
template <typename T, typename In>
__device__ void load_slice(
    const In* matrix,
    int64_t tokens,
    int64_t width,
    int64_t token,
    int64_t column,
    T (&shared)[kSlice][kTile]) {
  const int thread = threadIdx.y * kSide + threadIdx.x;
  for (int k = thread; k < kSlice * kTile; k += kSide * kSide) {
    const int64_t l = token + k / kTile;
    const int64_t c = column + k % kTile;
    shared[k / kTile][k % kTile] =
        l < tokens && c < width ? T(widen(matrix[l * width + c])) : T(0);
  }
}

template <typename T, typename In>
__global__ void __launch_bounds__(kSide* kSide) linear_square_kernel(
    const In* __restrict__ input,
    const In* __restrict__ grad_output,
    T* __restrict__ fisher,
    int64_t examples,
    int64_t tokens,
    int64_t in,
    int64_t out,
    T weight) {
  __shared__ T shared_input[kSlice][kTile];
  __shared__ T shared_output[kSlice][kTile];
  const int64_t row = int64_t{blockIdx.y} * kTile + threadIdx.y;
  const int64_t column = int64_t{blockIdx.x} * kTile + threadIdx.x;
  T squares[kSums][kSums] = {};
  for (int64_t i = 0; i < examples; ++i) {
    T sums[kSums][kSums] = {};
    for (int64_t l = 0; l < tokens; l += kSlice) {
      load_slice(
          input + i * tokens * in,
          tokens,
          in,
          l,
          int64_t{blockIdx.x} * kTile,
          shared_input);
      load_slice(
          grad_output + i * tokens * out,
          tokens,
          out,
          l,
          int64_t{blockIdx.y} * kTile,
          shared_output);
      __syncthreads();
#pragma unroll
      for (int k = 0; k < kSlice; ++k) {
#pragma unroll
        for (int r = 0; r < kSums; ++r) {
          const T d = shared_output[k][threadIdx.y + r * kSide];
#pragma unroll
          for (int c = 0; c < kSums; ++c) {
            sums[r][c] += d * shared_input[k][threadIdx.x + c * kSide];
          }
        }
      }
      __syncthreads();
    }
#pragma unroll
    for (int r = 0; r < kSums; ++r) {
#pragma unroll
      for (int c = 0; c < kSums; ++c) {
        squares[r][c] += sums[r][c] * sums[r][c];
      }
    }
  }
#pragma unroll
  for (int r = 0; r < kSums; ++r) {
#pragma unroll
    for (int c = 0; c < kSums; ++c) {
      const int64_t y = row + r * kSide;
      const int64_t x = column + c * kSide;
      if (y < out && x < in) {
        fisher[y * in + x] += squares[r][c] * weight;
      }
    }
  }
}

} // namespace

template <typename T, typename In>
void launch_linear_square_accumulate(
    const In* input,
    const In* grad_output,
    T* fisher,
    int64_t examples,
    int64_t tokens,
    int64_t in,
    int64_t out,
    T weight,
    cudaStream_t stream) {
  if (examples == 0 || in == 0 || out == 0) {
    return;
  }
  const dim3 blocks(
      static_cast<unsigned>((in + kTile - 1) / kTile),
      static_cast<unsigned>((out + kTile - 1) / kTile));
  linear_square_kernel<<<blocks, dim3(kSide, kSide), 0, stream>>>(
      input, grad_output, fisher, examples, tokens, in, out, weight);
}

#define INSTANTIATE(T, In)                       \
  template void launch_linear_square_accumulate( \
      const In*,                                 \
      const In*,                                 \
      T*,                                        \
      int64_t,                                   \
      int64_t,                                   \
      int64_t,                                   \
      int64_t,                                   \
      T,                                         \
      cudaStream_t);
INSTANTIATE(float, float)
INSTANTIATE(float, __nv_bfloat16)
INSTANTIATE(float, __half)
INSTANTIATE(double, double)

} // namespace merganser::kernels
