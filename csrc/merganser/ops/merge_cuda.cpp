#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <vector>

#include "merganser/ops/cuda_launch.h"
#include "merganser/ops/merge.h"

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

at::Tensor merge_cuda(const TensorMerge& merge) {
  check_merge(merge);
  const size_t models = merge.models.size();
  TORCH_CHECK(
      models <= kernels::kMaxMergeModels,
      "merge: at most ",
      kernels::kMaxMergeModels,
      " models on a GPU, got ",
      models,
      "; merge them on the CPU");
  const at::Tensor& first = merge.models[0];
  const c10::cuda::CUDAGuard guard(first.device());
  std::vector<at::Tensor> kept; // contiguous copies live until the launch
  const auto source = [&](const at::Tensor& tensor) {
    return kernel_source(kept.emplace_back(tensor.contiguous()));
  };
  at::Tensor out = at::empty(first.sizes(), first.options());
  const auto run = [&]<typename T>(T) {
    kernels::MergeArguments<T> arguments{};
    if (merge.base) {
      arguments.base = source(*merge.base);
    }
    if (merge.base_fisher) {
      arguments.base_fisher = source(*merge.base_fisher);
    }
    for (size_t t = 0; t < models; ++t) {
      arguments.models[t] = source(merge.models[t]);
      arguments.weights[t] = static_cast<T>(merge.weights[t]);
      arguments.rhos[t] =
          merge.rhos.empty() ? T(1) : static_cast<T>(merge.rhos[t]);
    }
    for (size_t t = 0; t < merge.fishers.size(); ++t) {
      arguments.fishers[t] = source(merge.fishers[t]);
      arguments.scales[t] = static_cast<T>(merge.num_examples[t]);
    }
    arguments.scalars = merge_scalars<T>(merge);
    arguments.out = out.data_ptr();
    arguments.out_type = kernel_type(out.scalar_type());
    arguments.n = out.numel();
    kernels::launch_merge(
        static_cast<MergeFormula>(merge.method),
        arguments,
        c10::cuda::getCurrentCUDAStream());
  };
  if (merge_type(merge) == at::kDouble) {
    run(double());
  } else {
    run(float());
  }
  C10_CUDA_KERNEL_LAUNCH_CHECK();
  return out;
}

TORCH_LIBRARY_IMPL(merganser, CUDA, m) {
  m.impl("merge", &unpack_merge<merge_cuda>);
}

} // namespace
} // namespace merganser::ops
