#include <torch/library.h>

#include <tuple>
#include <vector>

#include "merganser/ops/cuda_launch.h"

namespace merganser::ops {
namespace {

template <typename T, typename In>
using Tensors =
    std::vector<kernels::AdamTensor<T, typename KernelType<In>::type>>;

void adam_fisher_step_cuda(
    at::TensorList params,
    at::TensorList grads,
    at::TensorList exp_avgs,
    at::TensorList exp_avg_sqs,
    at::TensorList fishers,
    at::IntArrayRef steps,
    double lr,
    double beta1,
    double beta2,
    double eps,
    double weight_decay,
    double grad_scale,
    double fisher_weight) {
  check_adam_fisher_step_(
      params,
      grads,
      exp_avgs,
      exp_avg_sqs,
      fishers,
      steps,
      lr,
      beta1,
      beta2,
      eps,
      weight_decay,
      grad_scale,
      fisher_weight);
  const c10::cuda::CUDAGuard guard(params[0].device());
  std::vector<at::Tensor> kept; // contiguous copies live until the launch
  std::tuple<
      Tensors<float, float>,
      Tensors<float, c10::BFloat16>,
      Tensors<float, c10::Half>,
      Tensors<double, double>>
      by_type;
  for (size_t i = 0; i < params.size(); ++i) {
    const at::Tensor& grad =
        kept.emplace_back(kernel_input(grads[i], params[i].scalar_type()));
    dispatch_types(params[i], grad, [&]<typename T, typename In>() {
      std::get<Tensors<T, In>>(by_type).push_back(
          {kernel_data<In>(grad),
           params[i].data_ptr<T>(),
           exp_avgs[i].data_ptr<T>(),
           exp_avg_sqs[i].data_ptr<T>(),
           fishers.empty() ? nullptr : fishers[i].data_ptr<T>(),
           params[i].numel(),
           make_adam_scalars<T>(
               lr,
               beta1,
               beta2,
               eps,
               weight_decay,
               steps[i],
               grad_scale,
               fisher_weight)});
    });
  }
  const auto launch = [](const auto& tensors) {
    kernels::launch_adam_fisher_step(
        tensors.data(), std::ssize(tensors), c10::cuda::getCurrentCUDAStream());
    C10_CUDA_KERNEL_LAUNCH_CHECK();
  };
  std::apply([&](const auto&... tensors) { (launch(tensors), ...); }, by_type);
}

TORCH_LIBRARY_IMPL(merganser, CUDA, m) {
  m.impl("adam_fisher_step_", &adam_fisher_step_cuda);
}

} // namespace
} // namespace merganser::ops
