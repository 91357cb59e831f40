#include <ATen/ops/empty_like.h>
#include <torch/library.h>

#include "merganser/ops/cuda_launch.h"

namespace merganser::ops {
namespace {

at::Tensor dropout_cuda(
    const at::Tensor& input,
    double probability,
    int64_t seed,
    int64_t stream) {
  check_dropout(input, probability);
  const c10::cuda::CUDAGuard guard(input.device());
  const at::Tensor x = input.contiguous();
  at::Tensor y = at::empty_like(x);
  dispatch_types(x, x, [&]<typename T, typename In>() {
    using Value = typename KernelType<In>::type;
    kernels::launch_dropout<T>(
        kernel_data<In>(x),
        reinterpret_cast<Value*>(y.data_ptr<In>()),
        x.numel(),
        probability,
        seed,
        stream,
        c10::cuda::getCurrentCUDAStream());
  });
  C10_CUDA_KERNEL_LAUNCH_CHECK();
  return y;
}

TORCH_LIBRARY_IMPL(merganser, CUDA, m) {
  m.impl("dropout", &dropout_cuda);
}

} // namespace
} // namespace merganser::ops
