// One thread draws the label of one row with numeric/label_formula.h.

#include "merganser/kernels/device.cuh"
#include "merganser/kernels/kernels.h"
#include "merganser/numeric/block_count.h"
#include "merganser/numeric/label_formula.h"

namespace merganser::kernels {
namespace {

constexpr int kThreads = 128;

template <typename T>
__global__ void __launch_bounds__(kThreads) sample_labels_kernel(
    const T* __restrict__ probabilities,
    const int64_t* __restrict__ indices,
    int64_t* __restrict__ labels,
    int64_t rows,
    int64_t columns,
    uint64_t seed,
    uint64_t sample) {
  const int64_t stride = int64_t{gridDim.x} * kThreads;
  for (int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x; i < rows;
       i += stride) {
    labels[i] = draw_label(
        probabilities + i * columns,
        columns,
        seed,
        sample,
        static_cast<uint64_t>(indices[i]));
  }
}

} // namespace

template <typename T>
void launch_sample_labels(
    const T* probabilities,
    const int64_t* indices,
    int64_t* labels,
    int64_t rows,
    int64_t columns,
    uint64_t seed,
    uint64_t sample,
    cudaStream_t stream) {
  if (rows == 0) {
    return;
  }
  launch(
      {block_count(rows, kThreads), kThreads, stream},
      sample_labels_kernel<T>,
      probabilities,
      indices,
      labels,
      rows,
      columns,
      seed,
      sample);
}

#define INSTANTIATE(T)                \
  template void launch_sample_labels( \
      const T*,                       \
      const int64_t*,                 \
      int64_t*,                       \
      int64_t,                        \
      int64_t,                        \
      uint64_t,                       \
      uint64_t,                       \
      cudaStream_t);
INSTANTIATE(float)
INSTANTIATE(double)

} // namespace merganser::kernels
