#include <ATen/ops/sort.h>
#include <torch/library.h>

#include "merganser/ops/cuda_launch.h"

namespace merganser::ops {
namespace {

void embedding_square_accumulate_cuda(
    at::Tensor& fisher,
    const at::Tensor& indices,
    const at::Tensor& grad_output,
    double weight,
    int64_t padding_idx) {
  check_embedding_square_accumulate_(
      fisher, indices, grad_output, weight, padding_idx);
  const c10::cuda::CUDAGuard guard(fisher.device());
  const at::Tensor output = kernel_input(grad_output, fisher.scalar_type());
  // Stable: positions of one token keep the order of examples and tokens.
  const auto [ids, places] = at::sort(
      indices.reshape({-1}), /*stable=*/true, /*dim=*/0, /*descending=*/false);
  dispatch_types(
      fisher,
      output,
      [&, ids = ids, places = places]<typename T, typename In>() {
        kernels::launch_embedding_square_accumulate(
            ids.const_data_ptr<int64_t>(),
            places.const_data_ptr<int64_t>(),
            kernel_data<In>(output),
            fisher.data_ptr<T>(),
            ids.numel(),
            indices.size(1),
            fisher.size(0),
            fisher.size(1),
            padding_idx,
            static_cast<T>(weight),
            c10::cuda::getCurrentCUDAStream());
      });
  C10_CUDA_KERNEL_LAUNCH_CHECK();
}

TORCH_LIBRARY_IMPL(merganser, CUDA, m) {
  m.impl("embedding_square_accumulate_", &embedding_square_accumulate_cuda);
}

} // namespace
} // namespace merganser::ops
