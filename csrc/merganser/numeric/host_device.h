#pragma once

// Marks functions that both the CPU and the CUDA kernels call.
#ifdef __CUDACC__
#define MERGANSER_HOST_DEVICE __host__ __device__
#else
#define MERGANSER_HOST_DEVICE
#endif
