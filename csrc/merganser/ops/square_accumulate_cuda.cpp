#include <torch/library.h>

#include "merganser/ops/cuda_launch.h"

namespace merganser::ops {
namespace {

void square_accumulate_cuda(
    at::Tensor& fisher,
    const at::Tensor& grad,
    double weight) {
  check_square_accumulate_(fisher, grad, weight);
  const c10::cuda::CUDAGuard guard(fisher.device());
  const at::Tensor input = kernel_input(grad, fisher.scalar_type());
  dispatch_types(fisher, input, [&]<typename T, typename In>() {
    kernels::launch_square_accumulate(
        kernel_data<In>(input),
        fisher.data_ptr<T>(),
        fisher.numel(),
        static_cast<T>(weight),
        c10::cuda::getCurrentCUDAStream());
  });
  C10_CUDA_KERNEL_LAUNCH_CHECK();
}

TORCH_LIBRARY_IMPL(merganser, CUDA, m) {
  m.impl("square_accumulate_", &square_accumulate_cuda);
}

} // namespace
} // namespace merganser::ops
