// The token ids of the whole batch come sorted, so that the places of one token
// lie side by side, examples in order. The block at the first of them owns the
// token's row of the Fisher and walks along the others, a thread per channel:
// it adds up within an example, squares at its end, and needs no atomics. The
// blocks at the others have nothing to do.

#include <algorithm>

#include "kernels/kernels.h"
#include "kernels/vectors.cuh"

namespace merganser::kernels {
namespace {

constexpr int kThreads = 128;
constexpr int64_t kMaxBlocks = 1 << 20;

template <typename T, typename In>
__global__ void __launch_bounds__(kThreads) embedding_square_kernel(
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
  for (int64_t first = blockIdx.x; first < count; first += gridDim.x) {
    const int64_t row = ids[first];
    if (row < 0 || row >= rows) {
      __trap();
    }
    if (row == padding_idx || (first > 0 && ids[first - 1] == row)) {
      continue;
    }
    for (int64_t c = threadIdx.x; c < channels; c += kThreads) {
      T total = fisher[row * channels + c];
      int64_t k = first;
      while (k < count && ids[k] == row) {
        const int64_t example = places[k] / tokens;
        T sum = 0;
        for (; k < count && ids[k] == row && places[k] / tokens == example;
             ++k) {
          sum += T(widen(grad_output[places[k] * channels + c]));
        }
        total += sum * sum * weight;
      }
      fisher[row * channels + c] = total;
    }
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
  if (count == 0) {
    return;
  }
  embedding_square_kernel<<<
      static_cast<unsigned>(std::min(count, kMaxBlocks)),
      kThreads,
      0,
      stream>>>(
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
