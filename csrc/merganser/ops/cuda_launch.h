#pragma once

// Helpers of the CUDA adapters (*_cuda.cpp). An adapter checks the arguments,
// sets the device, takes torch's current stream and launches the kernel.

#include <ATen/core/Tensor.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include "merganser/kernels/kernels.h"
#include "merganser/ops/checks.h"
#include "merganser/ops/dispatch.h"

namespace merganser::ops {

// CUDA's type for a C++ type of torch.
template <typename T>
struct KernelType {
  using type = T;
};
template <>
struct KernelType<c10::BFloat16> {
  using type = __nv_bfloat16;
};
template <>
struct KernelType<c10::Half> {
  using type = __half;
};

template <typename T>
const typename KernelType<T>::type* kernel_data(const at::Tensor& tensor) {
  return reinterpret_cast<const typename KernelType<T>::type*>(
      tensor.const_data_ptr<T>());
}

} // namespace merganser::ops
