#pragma once

// csrc/merganser/kernels/device.cuh for the emulator: each function follows its
// definition in NVIDIA's PTX ISA.

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <cstring>

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
  emulator::run_grid(grid.blocks, grid.threads, grid.shared_bytes, [&] {
    kernel(arguments...);
  });
}

template <typename S>
S& block_shared() {
  static const char key = 0; // its address identifies S
  return *static_cast<S*>(emulator::shared_memory(&key, sizeof(S)));
}

inline uint4* launch_shared() {
  return static_cast<uint4*>(emulator::launch_memory());
}

template <int kBytes>
void copy_async(void* shared, const void* global, bool exists = true) {
  static_assert(kBytes == 4 || kBytes == 8 || kBytes == 16);
  emulator::copy_async(shared, global, kBytes, exists);
}

inline void commit_copies() {
  emulator::commit_copies();
}

template <int kGroups>
void wait_for_copies() {
  emulator::wait_for_copies(kGroups);
}

// ldmatrix .m8n8 .x4 .trans .b16: lanes 8i to 8i + 7 give the addresses of the
// rows of matrix i; lane j receives column j / 4, rows 2 (j % 4) and the next.
inline void load_transposed(uint32_t (&fragments)[4], const void* row) {
  const auto rows = emulator::exchange(row);
  const int lane = emulator::lane();
  for (int i = 0; i < 4; ++i) {
    uint16_t pair[2];
    for (int k = 0; k < 2; ++k) {
      const void* const from = rows[8 * i + lane % 4 * 2 + k];
      pair[k] = static_cast<const uint16_t*>(from)[lane / 4];
    }
    std::memcpy(&fragments[i], pair, sizeof(pair));
  }
}

inline float half_of(uint32_t pair, int k, __nv_bfloat16) {
  return merganser::float_from_bf16(static_cast<uint16_t>(pair >> (16 * k)));
}
inline float half_of(uint32_t pair, int k, __half) {
  return merganser::float_from_f16(static_cast<uint16_t>(pair >> (16 * k)));
}

// mma .m16n8k16 .row .col: A (16, 16), B (16, 8), C (16, 8). A lane holds
// pairs of neighbours of each matrix (along k for A and B).
template <typename In>
void multiply_add(
    float (&sums)[4],
    const uint32_t (&a)[4],
    const uint32_t (&b)[2]) {
  struct Fragments {
    uint32_t a[4], b[2];
  } mine;
  std::memcpy(mine.a, a, sizeof(a));
  std::memcpy(mine.b, b, sizeof(b));
  const auto all = emulator::exchange(mine);
  const int lane = emulator::lane();
  for (int i = 0; i < 4; ++i) {
    const int row = lane / 4 + i / 2 * 8;
    const int column = lane % 4 * 2 + i % 2;
    double sum = sums[i];
    for (int k = 0; k < 16; ++k) {
      const uint32_t x = all[row % 8 * 4 + k % 8 / 2].a[row / 8 + k / 8 * 2];
      const uint32_t y = all[column * 4 + k % 8 / 2].b[k / 8];
      sum += double{half_of(x, k % 2, In())} * half_of(y, k % 2, In());
    }
    sums[i] = static_cast<float>(sum);
  }
}

} // namespace merganser::kernels
