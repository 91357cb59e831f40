// One thread computes one lane of a tile: one Philox block for eight elements
// at a stride of sixteen, so that neighbouring threads read neighbouring
// elements.

#include "merganser/kernels/device.cuh"
#include "merganser/kernels/kernels.h"
#include "merganser/kernels/vectors.cuh"
#include "merganser/numeric/block_count.h"
#include "merganser/numeric/dropout_formula.h"

namespace merganser::kernels {
namespace {

constexpr int kThreads = 256;

template <typename T, typename In>
__global__ void __launch_bounds__(kThreads) dropout_kernel(
    const In* __restrict__ input,
    In* __restrict__ output,
    int64_t n,
    int64_t lanes,
    DropoutScalars<T> scalars,
    uint64_t seed,
    uint64_t stream) {
  const int64_t stride = int64_t{gridDim.x} * kThreads;
  for (int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x; i < lanes;
       i += stride) {
    const int64_t tile = i / kDropoutLanes;
    const int lane = static_cast<int>(i % kDropoutLanes);
    const PhiloxBlock block = dropout_block(seed, stream, tile, lane);
#pragma unroll
    for (int row = 0; row < kDropoutRows; ++row) {
      const int64_t k = tile * kDropoutTile + row * kDropoutLanes + lane;
      if (k < n) {
        output[k] = static_cast<In>(
            scalars.apply(widen(input[k]), block.word[row / 2], row));
      }
    }
  }
}

} // namespace

template <typename T, typename In>
void launch_dropout(
    const In* input,
    In* output,
    int64_t n,
    double probability,
    uint64_t seed,
    uint64_t stream_of_draws,
    cudaStream_t stream) {
  if (n == 0) {
    return;
  }
  const int64_t tiles = (n + kDropoutTile - 1) / kDropoutTile;
  const int64_t lanes = tiles * kDropoutLanes;
  launch(
      {block_count(lanes, kThreads), kThreads, stream},
      dropout_kernel<T, In>,
      input,
      output,
      n,
      lanes,
      make_dropout_scalars<T>(probability),
      seed,
      stream_of_draws);
}

#define INSTANTIATE(T, In)         \
  template void launch_dropout<T>( \
      const In*, In*, int64_t, double, uint64_t, uint64_t, cudaStream_t);
INSTANTIATE(float, float)
INSTANTIATE(float, __nv_bfloat16)
INSTANTIATE(float, __half)
INSTANTIATE(double, double)

} // namespace merganser::kernels
