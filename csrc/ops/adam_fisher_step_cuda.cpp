#include <torch/library.h>

#include "ops/cuda_launch.h"

namespace merganser::ops {
namespace {

void adam_fisher_step_cuda(
    at::Tensor& param,
    const at::Tensor& grad,
    at::Tensor& exp_avg,
    at::Tensor& exp_avg_sq,
    const std::optional<at::Tensor>& fisher,
    double lr,
    double beta1,
    double beta2,
    double eps,
    double weight_decay,
    int64_t step,
    double grad_scale,
    double fisher_weight) {
  check_adam_fisher_step_(
      param,
      grad,
      exp_avg,
      exp_avg_sq,
      fisher,
      lr,
      beta1,
      beta2,
      eps,
      weight_decay,
      step,
      grad_scale,
      fisher_weight);
  const c10::cuda::CUDAGuard guard(param.device());
  const at::Tensor input = kernel_input(grad, param.scalar_type());
  dispatch_types(param, input, [&]<typename T, typename In>() {
    const kernels::AdamTensor<T, typename KernelType<In>::type> tensor{
        kernel_data<In>(input),
        param.data_ptr<T>(),
        exp_avg.data_ptr<T>(),
        exp_avg_sq.data_ptr<T>(),
        fisher ? fisher->data_ptr<T>() : nullptr,
        param.numel(),
        make_adam_scalars<T>(
            lr,
            beta1,
            beta2,
            eps,
            weight_decay,
            step,
            grad_scale,
            fisher_weight)};
    kernels::launch_adam_fisher_step(
        &tensor, 1, c10::cuda::getCurrentCUDAStream());
  });
  C10_CUDA_KERNEL_LAUNCH_CHECK();
}

TORCH_LIBRARY_IMPL(merganser, CUDA, m) {
  m.impl("adam_fisher_step_", &adam_fisher_step_cuda);
}

} // namespace
} // namespace merganser::ops
