#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <vector>

#include "merganser/ops/cuda_launch.h"

namespace merganser::ops {
namespace {

kernels::Type kernel_type(at::ScalarType type) {
  switch (type) {
    case at::kBFloat16:
      return kernels::Type::kBFloat16;
    case at::kHalf:
      return kernels::Type::kHalf;
    case at::kDouble:
      return kernels::Type::kDouble;
    default:
      TORCH_INTERNAL_ASSERT(type == at::kFloat);
      return kernels::Type::kFloat;
  }
}

kernels::Source kernel_source(const at::Tensor& tensor) {
  return {tensor.const_data_ptr(), kernel_type(tensor.scalar_type())};
}

at::Tensor merge_cuda(
    const std::optional<at::Tensor>& base,
    const std::optional<at::Tensor>& base_fisher,
    at::TensorList models,
    at::TensorList fishers,
    at::ArrayRef<double> weights,
    at::ArrayRef<double> scales,
    double base_scale,
    int64_t method,
    double delta,
    double clamp,
    double floor) {
  check_merge(base, base_fisher, models, fishers, weights, scales, method);
  TORCH_CHECK(
      models.size() <= kernels::kMaxMergeModels,
      "merge: at most ",
      kernels::kMaxMergeModels,
      " models on a GPU, got ",
      models.size(),
      "; merge them on the CPU");
  const c10::cuda::CUDAGuard guard(models[0].device());
  std::vector<at::Tensor> kept; // contiguous copies live until the launch
  const auto source = [&](const at::Tensor& tensor) {
    return kernel_source(kept.emplace_back(tensor.contiguous()));
  };
  at::Tensor out = at::empty(models[0].sizes(), models[0].options());
  const auto run = [&]<typename T>(T) {
    kernels::MergeArguments<T> arguments{};
    if (base) {
      arguments.base = source(*base);
    }
    if (base_fisher) {
      arguments.base_fisher = source(*base_fisher);
    }
    for (size_t t = 0; t < models.size(); ++t) {
      arguments.models[t] = source(models[t]);
      arguments.weights[t] = static_cast<T>(weights[t]);
    }
    for (size_t t = 0; t < fishers.size(); ++t) {
      arguments.fishers[t] = source(fishers[t]);
      arguments.scales[t] = static_cast<T>(scales[t]);
    }
    arguments.scalars.count = static_cast<int>(models.size());
    arguments.scalars.base_scale = static_cast<T>(base_scale);
    arguments.scalars.delta = static_cast<T>(delta);
    arguments.scalars.clamp = static_cast<T>(clamp);
    arguments.scalars.floor = static_cast<T>(floor);
    arguments.out = out.data_ptr();
    arguments.out_type = kernel_type(out.scalar_type());
    arguments.n = out.numel();
    kernels::launch_merge(
        static_cast<MergeFormula>(method),
        arguments,
        c10::cuda::getCurrentCUDAStream());
  };
  if (merge_type(base, base_fisher, models, fishers) == at::kDouble) {
    run(double());
  } else {
    run(float());
  }
  C10_CUDA_KERNEL_LAUNCH_CHECK();
  return out;
}

TORCH_LIBRARY_IMPL(merganser, CUDA, m) {
  m.impl("merge", &merge_cuda);
}

} // namespace
} // namespace merganser::ops
