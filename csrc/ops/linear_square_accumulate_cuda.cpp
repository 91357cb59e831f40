#include <torch/library.h>

#include "ops/cuda_launch.h"

namespace merganser::ops {
namespace {

void linear_square_accumulate_cuda(
    at::Tensor& fisher,
    const at::Tensor& input,
    const at::Tensor& grad_output,
    double weight) {
  check_linear_square_accumulate_(fisher, input, grad_output, weight);
  const c10::cuda::CUDAGuard guard(fisher.device());
  const auto inputs = kernel_inputs(input, grad_output, fisher.scalar_type());
  const at::Tensor& d = inputs.second;
  const at::Tensor a = without_idle_tokens(inputs.first, d);
  if (a.size(1) == 1) {
    accumulate_single_tokens(fisher, a.squeeze(1), d.squeeze(1), weight);
    return;
  }
  dispatch_types(fisher, a, [&]<typename T, typename In>() {
    kernels::launch_linear_square_accumulate(
        kernel_data<In>(a),
        kernel_data<In>(d),
        fisher.data_ptr<T>(),
        a.size(0),
        a.size(1),
        fisher.size(1),
        fisher.size(0),
        static_cast<T>(weight),
        c10::cuda::getCurrentCUDAStream());
  });
  C10_CUDA_KERNEL_LAUNCH_CHECK();
}

TORCH_LIBRARY_IMPL(merganser, CUDA, m) {
  m.impl("linear_square_accumulate_", &linear_square_accumulate_cuda);
}

} // namespace
} // namespace merganser::ops
