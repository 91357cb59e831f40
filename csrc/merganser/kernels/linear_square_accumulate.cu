// One block owns a tile of the Fisher and loops over all examples, or over a
// share of them if the tiles alone do not fill the device. It copies the tokens
// with a gradient in slices: while it multiplies one slice, the next are in
// flight, across the ends of examples. A thread keeps its elements of the
// product in registers and squares them at the end of each example.
//
//              input (L, side)
//           +-----------------+
//   output  |  sums over the  |
//  (L, side)|  tokens         |
//           +-----------------+

#include <algorithm>

#include "merganser/kernels/kernels.h"
#include "merganser/kernels/product_tiles.cuh"
#include "merganser/kernels/token_slices.cuh"
#include "merganser/numeric/block_count.h"

namespace merganser::kernels {
namespace {

constexpr int64_t kEnoughBlocks = 512; // fills any device several times

template <typename T, typename In>
__global__ void __launch_bounds__(kTileThreads, 1) linear_square_kernel(
    Operand<In> output,
    Operand<In> input,
    const int* __restrict__ lists,
    T* __restrict__ fisher,
    T* __restrict__ partial,
    int64_t examples,
    int64_t tokens,
    T weight) {
  Stages<In>& stages = block_shared<Stages<In>>();
  output.column = int64_t{blockIdx.y} * kTileSide<In>;
  input.column = int64_t{blockIdx.x} * kTileSide<In>;
  Position<Slice<In>::kTokens> position(
      lists,
      tokens,
      examples * blockIdx.z / gridDim.z,
      examples * (blockIdx.z + 1) / gridDim.z);
  Fetcher<In> fetcher(position);
  ProductTile<In> tile;
  for (int stage = 0; stage < kStages - 1; ++stage) {
    fetcher.fetch_both(output, input, stages, stage);
  }
  for (int stage = 0; !position.done(); position.advance()) {
    wait_for_copies<kStages - 2>();
    __syncthreads(); // this slice has arrived; the last one is free
    fetcher.fetch_both(output, input, stages, (stage + kStages - 1) % kStages);
    tile.multiply(
        stages.output[stage],
        stages.input[stage],
        position.count - position.first);
    if (position.ends_example()) {
      tile.own.end_example();
    }
    stage = (stage + 1) % kStages;
  }
  tile.for_each([&](int r, int c, T squares) {
    const int64_t y = output.column + r;
    const int64_t x = input.column + c;
    if (y < output.width && x < input.width) {
      const int64_t k = y * input.width + x;
      if (gridDim.z == 1) {
        fisher[k] += squares * weight;
      } else {
        partial[blockIdx.z * output.width * input.width + k] = squares;
      }
    }
  });
}

template <typename In>
Operand<In> make_operand(const In* data, int64_t width) {
  return {data, width, rows_aligned<Slice<In>::kPack>(width, data), 0};
}

template <typename In>
dim3 tiles(int64_t in, int64_t out) {
  return {
      block_for_each(in, kTileSide<In>), block_for_each(out, kTileSide<In>)};
}

} // namespace

template <typename In>
int64_t linear_square_shares(int64_t examples, int64_t in, int64_t out) {
  const dim3 grid = tiles<In>(in, out);
  const int64_t blocks = std::max(int64_t{grid.x} * grid.y, int64_t{1});
  return std::clamp<int64_t>(
      kEnoughBlocks / blocks, 1, std::max<int64_t>(examples, 1));
}

template <typename T, typename In>
void launch_linear_square_accumulate(
    const In* input,
    const In* grad_output,
    const int* lists,
    T* partial,
    T* fisher,
    int64_t shares,
    int64_t examples,
    int64_t tokens,
    int64_t in,
    int64_t out,
    T weight,
    cudaStream_t stream) {
  if (examples == 0 || in == 0 || out == 0) {
    return;
  }
  dim3 blocks = tiles<In>(in, out);
  blocks.z = static_cast<unsigned>(shares);
  launch(
      {blocks, kTileThreads, stream},
      linear_square_kernel<T, In>,
      make_operand(grad_output, out),
      make_operand(input, in),
      lists,
      fisher,
      partial,
      examples,
      tokens,
      weight);
  if (shares > 1) {
    launch_add_examples(partial, fisher, shares, in * out, weight, stream);
  }
}

#define INSTANTIATE(T, In)                                              \
  template int64_t linear_square_shares<In>(int64_t, int64_t, int64_t); \
  template void launch_linear_square_accumulate(                        \
      const In*,                                                        \
      const In*,                                                        \
      const int*,                                                       \
      T*,                                                               \
      T*,                                                               \
      int64_t,                                                          \
      int64_t,                                                          \
      int64_t,                                                          \
      int64_t,                                                          \
      int64_t,                                                          \
      T,                                                                \
      cudaStream_t);
INSTANTIATE(float, float)
INSTANTIATE(float, __nv_bfloat16)
INSTANTIATE(float, __half)
INSTANTIATE(double, double)

} // namespace merganser::kernels
