#pragma once

// One pass over the elements of several tensors in one launch. A block owns a
// chunk of one tensor; a thread takes N neighbouring elements at a time (16
// bytes of the widest array), then strides by a block. The remainder of a chunk
// and tensors with unaligned arrays go element by element, with the same
// results.

#include <cstdint>

#include "merganser/kernels/device.cuh"
#include "merganser/kernels/vectors.cuh"

namespace merganser::kernels {

constexpr int kThreads = 256;
// Small enough that the last wave of blocks is a small part of a large tensor.
constexpr int64_t kChunk = 16384;
constexpr size_t kArgumentBytes = 4096; // limit of every device

template <typename Body>
struct Tasks {
  static constexpr int kMax =
      (kArgumentBytes - 8) / (sizeof(Body) + sizeof(unsigned));
  Body bodies[kMax];
  unsigned ends[kMax]; // the chunks of the first i + 1 bodies
  int count = 0;
};

// Body has `n` elements; aligned<N>() is true if its arrays can be read N at a
// time; run<N>(i) processes the elements [i, i + N).
template <int N, typename Body>
__global__ void __launch_bounds__(kThreads)
    for_each_element(const __grid_constant__ Tasks<Body> tasks) {
  static_assert(sizeof(Tasks<Body>) <= kArgumentBytes);
  int k = 0;
  while (blockIdx.x >= tasks.ends[k]) {
    ++k;
  }
  const Body& body = tasks.bodies[k];
  const unsigned chunk = blockIdx.x - (k == 0 ? 0 : tasks.ends[k - 1]);
  const int64_t begin = chunk * kChunk;
  const int64_t end = begin + kChunk < body.n ? begin + kChunk : body.n;
  const int64_t middle =
      body.template aligned<N>() ? end - (end - begin) % N : begin;
  for (int64_t i = begin + threadIdx.x * N; i < middle; i += kThreads * N) {
    body.template run<N>(i);
  }
  for (int64_t i = middle + threadIdx.x; i < end; i += kThreads) {
    body.template run<1>(i);
  }
}

// Runs Body(tensor) for each of `count` tensors; N elements of the widest array
// take 16 bytes.
template <int N, typename Body, typename Tensor>
void launch_elementwise(
    const Tensor* tensors,
    int64_t count,
    cudaStream_t stream) {
  Tasks<Body> tasks;
  unsigned chunks = 0;
  const auto run = [&] {
    if (tasks.count > 0) {
      launch({chunks, kThreads, stream}, for_each_element<N, Body>, tasks);
    }
    tasks.count = 0;
    chunks = 0;
  };
  for (int64_t i = 0; i < count; ++i) {
    if (tensors[i].n == 0) {
      continue;
    }
    chunks += static_cast<unsigned>((tensors[i].n + kChunk - 1) / kChunk);
    tasks.bodies[tasks.count] = Body{tensors[i]};
    tasks.ends[tasks.count] = chunks;
    if (++tasks.count == Tasks<Body>::kMax) {
      run();
    }
  }
  run();
}

} // namespace merganser::kernels
