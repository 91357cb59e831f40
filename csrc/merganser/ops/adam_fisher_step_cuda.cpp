#include <torch/library.h>

#include <tuple>
#include <vector>

#include "merganser/ops/adam_fisher_step.h"
#include "merganser/ops/cuda_launch.h"

namespace merganser::ops {
namespace {

template <typename T, typename In>
using Tensors =
    std::vector<kernels::AdamTensor<T, typename KernelType<In>::type>>;

void adam_fisher_step_cuda(const AdamFisherStep& step) {
  check_adam_fisher_step_(step);
  const c10::cuda::CUDAGuard guard(step.params[0].device());
  std::vector<at::Tensor> kept; // contiguous copies live until the launch
  std::tuple<
      Tensors<float, float>,
      Tensors<float, c10::BFloat16>,
      Tensors<float, c10::Half>,
      Tensors<double, double>>
      by_type;
  for (size_t i = 0; i < step.params.size(); ++i) {
    const at::Tensor& param = step.params[i];
    const at::Tensor& grad =
        kept.emplace_back(kernel_input(step.grads[i], param.scalar_type()));
    dispatch_types(param, grad, [&]<typename T, typename In>() {
      std::get<Tensors<T, In>>(by_type).push_back(
          {kernel_data<In>(grad),
           param.data_ptr<T>(),
           step.exp_avgs[i].data_ptr<T>(),
           step.exp_avg_sqs[i].data_ptr<T>(),
           step.fishers.empty() ? nullptr : step.fishers[i].data_ptr<T>(),
           param.numel(),
           adam_scalars<T>(step, i)});
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
  m.impl("adam_fisher_step_", &unpack_adam_fisher_step_<adam_fisher_step_cuda>);
}

} // namespace
} // namespace merganser::ops
