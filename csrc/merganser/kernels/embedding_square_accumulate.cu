// The token ids of the whole batch are sorted: the places of one token are
// neighbours, examples in order. The blocks at the first place of a token own
// its row of the Fisher, each a range of channels, and need no atomics; the
// blocks at the other places skip them.
//
// A frequent token (a token type, a position) would keep one thread busy, so
// the rows of threads of a block divide its places at the starts of examples.
// One thread sums N channels over the places of each example in its share and
// adds the squares; the first row adds the shares in order.

#include "merganser/kernels/device.cuh"
#include "merganser/kernels/kernels.h"
#include "merganser/kernels/vectors.cuh"
#include "merganser/numeric/block_count.h"

namespace merganser::kernels {
namespace {

constexpr int kLanes = 32; // neighbouring threads: 512 bytes of a token
constexpr int kRows = 8;

template <typename T, int N>
struct Totals {
  Pack<T, N> row[kRows][kLanes];
};

// Number of leading ids equal to ids[0]; ids [0, count) are sorted.
__device__ int64_t run_length(const int64_t* ids, int64_t count) {
  int64_t low = 1; // known to be in the run
  int64_t step = 1;
  while (low + step <= count && ids[low + step - 1] == ids[0]) {
    low += step;
    step *= 2;
  }
  for (; step > 0; step /= 2) {
    if (low + step <= count && ids[low + step - 1] == ids[0]) {
      low += step;
    }
  }
  return low;
}

template <int N, typename T, typename In>
__global__ void __launch_bounds__(kLanes* kRows) embedding_square_kernel(
    const int64_t* __restrict__ ids,
    const int64_t* __restrict__ places,
    const In* __restrict__ grad_output,
    T* __restrict__ fisher,
    int64_t count,
    int64_t tokens,
    int64_t rows,
    int64_t channels,
    int64_t padding_idx,
    T weight) {
  Totals<T, N>& totals = block_shared<Totals<T, N>>();
  const int64_t c = (int64_t{blockIdx.x} * kLanes + threadIdx.x) * N;
  for (int64_t first = blockIdx.y; first < count; first += gridDim.y) {
    const int64_t row = ids[first];
    if (row < 0 || row >= rows) {
      __trap();
    }
    if (row == padding_idx || (first > 0 && ids[first - 1] == row)) {
      continue;
    }
    const int64_t length = run_length(ids + first, count - first);
    const int64_t* const own = places + first;
    // This thread takes the examples that begin in its share, to their ends.
    int64_t k = length * threadIdx.y / kRows;
    const int64_t end = length * (threadIdx.y + 1) / kRows;
    if (k > 0) {
      const int64_t before = own[k - 1] / tokens;
      while (k < end && own[k] / tokens == before) {
        ++k;
      }
    }
    Pack<T, N> total{};
    while (k < end && c < channels) {
      const int64_t next_example = (own[k] / tokens + 1) * tokens;
      Pack<T, N> sum{};
      for (; k < length && own[k] < next_example; ++k) {
        const Pack<In, N> d = load<N>(grad_output + own[k] * channels + c);
#pragma unroll
        for (int j = 0; j < N; ++j) {
          sum.value[j] += T(widen(d.value[j]));
        }
      }
#pragma unroll
      for (int j = 0; j < N; ++j) {
        total.value[j] += sum.value[j] * sum.value[j] * weight;
      }
    }
    totals.row[threadIdx.y][threadIdx.x] = total;
    __syncthreads();
    if (threadIdx.y == 0 && c < channels) {
      Pack<T, N> f = load<N>(fisher + row * channels + c);
      for (int r = 0; r < kRows; ++r) {
#pragma unroll
        for (int j = 0; j < N; ++j) {
          f.value[j] += totals.row[r][threadIdx.x].value[j];
        }
      }
      store(fisher + row * channels + c, f);
    }
    __syncthreads();
  }
}

} // namespace

template <typename T, typename In>
void launch_embedding_square_accumulate(
    const int64_t* ids,
    const int64_t* places,
    const In* grad_output,
    T* fisher,
    int64_t count,
    int64_t tokens,
    int64_t rows,
    int64_t channels,
    int64_t padding_idx,
    T weight,
    cudaStream_t stream) {
  if (count == 0 || channels == 0) {
    return;
  }
  // 16 bytes of the gradient, up to 32 of the Fisher, which is read once per
  // token.
  constexpr int kPack = 16 / sizeof(In);
  const bool packed = rows_aligned<kPack>(channels, grad_output, fisher);
  launch(
      {dim3(
           block_for_each(channels, kLanes * (packed ? kPack : 1)),
           block_count(count, 1)),
       dim3(kLanes, kRows),
       stream},
      packed ? &embedding_square_kernel<kPack, T, In>
             : &embedding_square_kernel<1, T, In>,
      ids,
      places,
      grad_output,
      fisher,
      count,
      tokens,
      rows,
      channels,
      padding_idx,
      weight);
}

#define INSTANTIATE(T, In)                          \
  template void launch_embedding_square_accumulate( \
      const int64_t*,                               \
      const int64_t*,                               \
      const In*,                                    \
      T*,                                           \
      int64_t,                                      \
      int64_t,                                      \
      int64_t,                                      \
      int64_t,                                      \
      int64_t,                                      \
      T,                                            \
      cudaStream_t);
INSTANTIATE(float, float)
INSTANTIATE(float, __nv_bfloat16)
INSTANTIATE(float, __half)
INSTANTIATE(double, double)

} // namespace merganser::kernels
