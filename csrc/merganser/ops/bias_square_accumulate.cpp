// fisher (C) += weight * sum_i (sum_l D_il)^2: a bias adds to every token, so
// that an example's gradient is the sum over its tokens.

#include <ATen/Parallel.h>

#include "merganser/ops/checks.h"
#include "merganser/ops/cpu_kernels.h"
#include "merganser/ops/dispatch.h"
#include "merganser/ops/reference.h"
#include "merganser/ops/token_sums.h"

namespace merganser::ops {

void bias_square_accumulate_reference_(
    at::Tensor& fisher,
    const at::Tensor& grad_output,
    double weight) {
  const at::Tensor d = as_tokens(grad_output).to(fisher.scalar_type());
  fisher.add_(d.sum(1).square().sum(0).mul(weight));
}

void check_bias_square_accumulate_(
    at::Tensor& fisher,
    const at::Tensor& grad_output,
    double weight) {
  constexpr const char* kOp = "bias_square_accumulate_";
  check_accumulator(kOp, "fisher", fisher);
  check_dim(kOp, "fisher", fisher, 1);
  check_input(kOp, "grad_output", grad_output, fisher);
  check_tokens(kOp, "grad_output", grad_output, fisher.size(0));
  check_weight(kOp, weight);
}

void bias_square_accumulate_cpu(
    at::Tensor& fisher,
    const at::Tensor& grad_output,
    double weight) {
  check_bias_square_accumulate_(fisher, grad_output, weight);
  const at::Tensor output =
      as_tokens(kernel_input(grad_output, fisher.scalar_type()));
  const int64_t examples = output.size(0);
  const int64_t tokens = output.size(1);
  const int64_t channels = output.size(2);
  dispatch_types(fisher, output, [&]<typename T, typename In>() {
    T* const f = fisher.data_ptr<T>();
    const In* const d = output.const_data_ptr<In>();
    at::parallel_for(
        0,
        channels,
        channel_grain(examples, tokens),
        [=](int64_t begin, int64_t end) {
          accumulate_token_sums(
              f,
              begin,
              end,
              examples,
              tokens,
              static_cast<T>(weight),
              [=](int64_t i, int64_t l, int64_t c) {
                return static_cast<T>(d[(i * tokens + l) * channels + c]);
              });
        });
  });
}

} // namespace merganser::ops
