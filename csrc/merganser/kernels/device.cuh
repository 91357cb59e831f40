#pragma once

// The parts of the kernels that are CUDA rather than C++: launches, shared
// memory, asynchronous copies, products on tensor cores. The tests emulate this
// header (tests/cpp/kernels/emulator) to run the kernels on a CPU. Included by
// .cu files only.

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <type_traits>

namespace merganser::kernels {

struct Grid {
  dim3 blocks;
  dim3 threads;
  cudaStream_t stream;
  size_t shared_bytes = 0;
};

template <typename... Parameters, typename... Arguments>
void launch(
    const Grid& grid,
    void (*kernel)(Parameters...),
    const Arguments&... arguments) {
  kernel<<<grid.blocks, grid.threads, grid.shared_bytes, grid.stream>>>(
      arguments...);
}

// One S per block in shared memory, not initialised.
template <typename S>
__device__ S& block_shared() {
  __shared__ S memory;
  return memory;
}

// The shared memory of Grid::shared_bytes.
__device__ inline uint4* launch_shared() {
  extern __shared__ uint4 memory[];
  return memory;
}

__device__ inline unsigned shared_address(const void* shared) {
  return static_cast<unsigned>(__cvta_generic_to_shared(shared));
}

// Starts a copy of kBytes (4, 8 or 16, aligned to kBytes), or of zeros if
// `exists` is false. Complete after wait_for_copies.
template <int kBytes>
__device__ void copy_async(
    void* shared,
    const void* global,
    bool exists = true) {
  const unsigned to = shared_address(shared);
  const int bytes = exists ? kBytes : 0;
  if constexpr (kBytes == 16) { // .cg: past the first-level cache
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
                 :
                 : "r"(to), "l"(global), "r"(bytes)
                 : "memory");
  } else {
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;"
                 :
                 : "r"(to), "l"(global), "n"(kBytes), "r"(bytes)
                 : "memory");
  }
}

// Makes a group of the copies since the last commit.
__device__ inline void commit_copies() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}

// Waits until at most the last kGroups groups of this thread are in flight.
template <int kGroups>
__device__ void wait_for_copies() {
  asm volatile("cp.async.wait_group %0;" : : "n"(kGroups) : "memory");
}

// Loads four 8 x 8 matrices of 16-bit numbers from shared memory, transposed:
// lanes 8i to 8i + 7 give the addresses of the rows of matrix i; lane j
// receives its column j / 4, rows 2 (j % 4) and the next, as a pair.
__device__ inline void load_transposed(
    uint32_t (&fragments)[4],
    const void* row) {
  asm volatile(
      "ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
      : "=r"(fragments[0]),
        "=r"(fragments[1]),
        "=r"(fragments[2]),
        "=r"(fragments[3])
      : "r"(shared_address(row))
      : "memory");
}

// sums (16, 8) += A (16, 16) B (16, 8), distributed over the lanes of a warp as
// in the PTX ISA's mma.m16n8k16.
template <typename In>
__device__ void multiply_add(
    float (&sums)[4],
    const uint32_t (&a)[4],
    const uint32_t (&b)[2]) {
#define MERGANSER_MMA(type)                                              \
  asm("mma.sync.aligned.m16n8k16.row.col.f32." type "." type             \
      ".f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, " \
      "%3};"                                                             \
      : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])       \
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]))
  if constexpr (std::is_same_v<In, __half>) {
    MERGANSER_MMA("f16");
  } else {
    MERGANSER_MMA("bf16");
  }
#undef MERGANSER_MMA
}

} // namespace merganser::kernels
