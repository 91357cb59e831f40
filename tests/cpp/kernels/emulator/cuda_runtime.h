#pragma once

// The parts of CUDA's header of this name that the kernels use, emulated.

#include <cstdint>

#include "emulator.h"

#define __global__
#define __device__
#define __host__
#define __grid_constant__
#define __launch_bounds__(...)

using cudaStream_t = void*;

struct dim3 : emulator::Index {
  dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : Index{x, y, z} {}
};

struct alignas(16) uint4 {
  unsigned x, y, z, w;
};

#define threadIdx emulator::thread_index
#define blockIdx emulator::block_index
#define blockDim emulator::block_size
#define gridDim emulator::grid_size

inline void __syncthreads() {
  emulator::wait_for_block();
}

inline void __trap() {
  emulator::fail("__trap");
}

inline unsigned __ballot_sync(unsigned /*mask*/, bool mine) {
  unsigned ballot = 0;
  const auto votes = emulator::exchange(mine);
  for (int i = 0; i < emulator::kLanes; ++i) {
    ballot |= unsigned{votes[i]} << i;
  }
  return ballot;
}

inline int __popc(unsigned bits) {
  return __builtin_popcount(bits);
}
