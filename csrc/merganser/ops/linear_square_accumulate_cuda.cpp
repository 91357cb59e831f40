#include <ATen/Context.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include "merganser/ops/cuda_launch.h"

namespace merganser::ops {
namespace {

constexpr int64_t kMaxTokens = 1 << 30; // token lists hold ints

void linear_square_accumulate_cuda(
    at::Tensor& fisher,
    const at::Tensor& input,
    const at::Tensor& grad_output,
    double weight) {
  check_linear_square_accumulate_(fisher, input, grad_output, weight);
  const c10::cuda::CUDAGuard guard(fisher.device());
  const auto [a, d] = kernel_inputs(input, grad_output, fisher.scalar_type());
  const int64_t examples = a.size(0);
  const int64_t tokens = a.size(1);
  if (tokens == 1) {
    const at::NoTF32Guard float32; // even if models may use TF32
    accumulate_single_tokens(
        fisher, without_idle_tokens(a, d).squeeze(1), d.squeeze(1), weight);
    return;
  }
  TORCH_CHECK(
      tokens <= kMaxTokens,
      "linear_square_accumulate_: at most ",
      kMaxTokens,
      " tokens per example on a GPU, got ",
      tokens);
  const int64_t in = fisher.size(1);
  const int64_t out = fisher.size(0);
  const auto stream = c10::cuda::getCurrentCUDAStream();
  const at::Tensor lists =
      at::empty({examples, 1 + tokens}, fisher.options().dtype(at::kInt));
  dispatch_types(fisher, a, [&, a = a, d = d]<typename T, typename In>() {
    kernels::launch_example_tokens(
        kernel_data<In>(d),
        lists.data_ptr<int>(),
        examples,
        tokens,
        out,
        stream);
    C10_CUDA_KERNEL_LAUNCH_CHECK();
    const int64_t shares =
        kernels::linear_square_shares<typename KernelType<In>::type>(
            examples, in, out);
    const at::Tensor partial =
        at::empty({shares > 1 ? shares : 0, out, in}, fisher.options());
    kernels::launch_linear_square_accumulate(
        kernel_data<In>(a),
        kernel_data<In>(d),
        lists.const_data_ptr<int>(),
        partial.data_ptr<T>(),
        fisher.data_ptr<T>(),
        shares,
        examples,
        tokens,
        in,
        out,
        static_cast<T>(weight),
        stream);
    C10_CUDA_KERNEL_LAUNCH_CHECK();
  });
}

TORCH_LIBRARY_IMPL(merganser, CUDA, m) {
  m.impl("linear_square_accumulate_", &linear_square_accumulate_cuda);
}

} // namespace
} // namespace merganser::ops
