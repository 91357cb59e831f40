#pragma once

// One pass over n elements. One thread takes N neighbouring elements at a time
// (16 bytes of the widest array), then those a whole grid further on; what is
// left over at the end goes to the first threads, an element each. Where an
// array is not aligned, N is 1: the results are the same.

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>

#include "kernels/vectors.cuh"

namespace merganser::kernels {

constexpr int kThreads = 256;
constexpr int64_t kMaxBlocks = 8192; // enough to fill any device several times

// body.template run<N>(i) does the elements [i, i + N).
template <int N, typename Body>
__global__ void __launch_bounds__(kThreads)
    for_each_pack(int64_t n, const Body body) {
  const int64_t thread = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  const int64_t stride = int64_t{gridDim.x} * kThreads * N;
  for (int64_t i = thread * N; i + N <= n; i += stride) {
    body.template run<N>(i);
  }
  const int64_t rest = n % N;
  if (thread < rest) {
    body.template run<1>(n - rest + thread);
  }
}

template <int N, typename Body>
void launch_packs(int64_t n, const Body& body, cudaStream_t stream) {
  const int64_t packs = (n + N - 1) / N;
  const int64_t blocks = (packs + kThreads - 1) / kThreads;
  for_each_pack<N>
      <<<static_cast<unsigned>(std::min(blocks, kMaxBlocks)),
         kThreads,
         0,
         stream>>>(n, body);
}

// body.aligned<N>() says whether all its arrays may be read N at a time.
template <typename T, typename Body>
void launch_elementwise(int64_t n, const Body& body, cudaStream_t stream) {
  constexpr int kPack = 16 / sizeof(T);
  if (n == 0) {
    return;
  }
  if (body.template aligned<kPack>()) {
    launch_packs<kPack>(n, body, stream);
  } else {
    launch_packs<1>(n, body, stream);
  }
}

} // namespace merganser::kernels
