// Biases and LayerNorm weights share their kernels.

#include <ATen/ops/empty.h>
#include <torch/library.h>

#include "merganser/ops/cuda_launch.h"

namespace merganser::ops {
namespace {

// normalized may be undefined.
void accumulate_token_sums(
    at::Tensor& fisher,
    const at::Tensor& normalized,
    const at::Tensor& output,
    double weight) {
  const c10::cuda::CUDAGuard guard(fisher.device());
  const at::Tensor squares =
      at::empty({output.size(0), fisher.size(0)}, fisher.options());
  const auto stream = c10::cuda::getCurrentCUDAStream();
  dispatch_types(fisher, output, [&]<typename T, typename In>() {
    kernels::launch_token_sum_squares(
        kernel_data<In>(output),
        normalized.defined() ? kernel_data<In>(normalized) : nullptr,
        squares.data_ptr<T>(),
        output.size(0),
        output.size(1),
        output.size(2),
        stream);
    C10_CUDA_KERNEL_LAUNCH_CHECK();
    kernels::launch_add_examples(
        squares.const_data_ptr<T>(),
        fisher.data_ptr<T>(),
        output.size(0),
        output.size(2),
        static_cast<T>(weight),
        stream);
    C10_CUDA_KERNEL_LAUNCH_CHECK();
  });
}

void bias_square_accumulate_cuda(
    at::Tensor& fisher,
    const at::Tensor& grad_output,
    double weight) {
  check_bias_square_accumulate_(fisher, grad_output, weight);
  const at::Tensor output =
      as_tokens(kernel_input(grad_output, fisher.scalar_type()));
  accumulate_token_sums(fisher, at::Tensor(), output, weight);
}

void layer_norm_square_accumulate_cuda(
    at::Tensor& fisher,
    const at::Tensor& normalized,
    const at::Tensor& grad_output,
    double weight) {
  check_layer_norm_square_accumulate_(fisher, normalized, grad_output, weight);
  const auto [input, output] =
      kernel_inputs(normalized, grad_output, fisher.scalar_type());
  accumulate_token_sums(fisher, input, output, weight);
}

TORCH_LIBRARY_IMPL(merganser, CUDA, m) {
  m.impl("bias_square_accumulate_", &bias_square_accumulate_cuda);
  m.impl("layer_norm_square_accumulate_", &layer_norm_square_accumulate_cuda);
}

} // namespace
} // namespace merganser::ops
