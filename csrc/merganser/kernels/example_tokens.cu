// Lists the tokens of each example that have a gradient. A block takes one
// example, a warp one token at a time; a thread tests N neighbouring numbers of
// it, and the warp stops at the first that is not zero. Then the first warp
// writes the tokens found in order.

#include "merganser/kernels/device.cuh"
#include "merganser/kernels/kernels.h"
#include "merganser/kernels/vectors.cuh"

namespace merganser::kernels {
namespace {

constexpr int kLanes = 32;
constexpr int kWarps = 32; // tokens at a time, one bit each in a ballot
constexpr unsigned kAll = 0xffffffff;

struct Found {
  bool token[kWarps];
};

template <int N, typename In>
__device__ bool any_nonzero(const In* row, int64_t width, int lane) {
  for (int64_t first = 0; first < width; first += kLanes * N) {
    const int64_t c = first + lane * N;
    bool nonzero = false;
    if (c < width) {
      const Pack<In, N> pack = load<N>(row + c);
#pragma unroll
      for (int k = 0; k < N; ++k) {
        nonzero |= !(widen(pack.value[k]) == 0); // a NaN is not zero
      }
    }
    if (__ballot_sync(kAll, nonzero) != 0) {
      return true;
    }
  }
  return false;
}

template <int N, typename In>
__global__ void __launch_bounds__(kLanes* kWarps) example_tokens_kernel(
    const In* __restrict__ grad_output,
    int* __restrict__ lists,
    int64_t tokens,
    int64_t width) {
  Found& found = block_shared<Found>();
  const int lane = threadIdx.x;
  const int warp = threadIdx.y;
  const In* const rows = grad_output + blockIdx.x * tokens * width;
  int* const list = lists + blockIdx.x * (tokens + 1);
  int count = 0;
  for (int64_t first = 0; first < tokens; first += kWarps) {
    const int64_t l = first + warp;
    const bool taken =
        l < tokens && any_nonzero<N>(rows + l * width, width, lane);
    if (lane == 0) {
      found.token[warp] = taken;
    }
    __syncthreads();
    if (warp == 0) {
      const unsigned ballot = __ballot_sync(kAll, found.token[lane]);
      if (found.token[lane]) {
        const unsigned before = ballot & ((1u << lane) - 1);
        list[1 + count + __popc(before)] = static_cast<int>(first) + lane;
      }
      count += __popc(ballot);
    }
    __syncthreads();
  }
  if (warp == 0 && lane == 0) {
    list[0] = count;
  }
}

} // namespace

template <typename In>
void launch_example_tokens(
    const In* grad_output,
    int* lists,
    int64_t examples,
    int64_t tokens,
    int64_t width,
    cudaStream_t stream) {
  if (examples == 0) {
    return;
  }
  constexpr int kPack = 16 / sizeof(In);
  launch(
      {static_cast<unsigned>(examples), dim3(kLanes, kWarps), stream},
      rows_aligned<kPack>(width, grad_output)
          ? &example_tokens_kernel<kPack, In>
          : &example_tokens_kernel<1, In>,
      grad_output,
      lists,
      tokens,
      width);
}

#define INSTANTIATE(In)                \
  template void launch_example_tokens( \
      const In*, int*, int64_t, int64_t, int64_t, cudaStream_t);
INSTANTIATE(float)
INSTANTIATE(double)
INSTANTIATE(__nv_bfloat16)
INSTANTIATE(__half)

} // namespace merganser::kernels
