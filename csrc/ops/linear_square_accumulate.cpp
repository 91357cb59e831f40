// fisher (out, in) += weight * sum_i (D_i^T A_i)^2: the weight gradient of each
// example, squared. No buffer has both an example and a weight dimension.

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/library.h>

#include "ops/checks.h"
#include "ops/dispatcher.h"
#include "ops/reference.h"

namespace merganser::ops {

void linear_square_accumulate_(
    at::Tensor& fisher,
    const at::Tensor& input,
    const at::Tensor& grad_output,
    double weight) {
  static const auto op = find_op(
      "merganser::linear_square_accumulate_", linear_square_accumulate_);
  op.call(fisher, input, grad_output, weight);
}

void linear_square_accumulate_reference_(
    at::Tensor& fisher,
    const at::Tensor& input,
    const at::Tensor& grad_output,
    double weight) {
  const at::Tensor a = as_tokens(input).to(fisher.scalar_type());
  const at::Tensor d = as_tokens(grad_output).to(fisher.scalar_type());
  for (int64_t i = 0; i < a.size(0); ++i) {
    fisher.add_(at::mm(d[i].t(), a[i]).square().mul(weight));
  }
}

void check_linear_square_accumulate_(
    at::Tensor& fisher,
    const at::Tensor& input,
    const at::Tensor& grad_output,
    double weight) {
  constexpr const char* kOp = "linear_square_accumulate_";
  check_accumulator(kOp, "fisher", fisher);
  check_dim(kOp, "fisher", fisher, 2);
  check_input(kOp, "input", input, fisher);
  check_tokens(kOp, "input", input, fisher.size(1));
  check_input(kOp, "grad_output", grad_output, fisher);
  check_tokens(kOp, "grad_output", grad_output, fisher.size(0));
  check_shape(
      kOp,
      "the leading part of grad_output",
      grad_output.select(-1, 0),
      input.select(-1, 0).sizes());
  check_weight(kOp, weight);
}

namespace {

void linear_square_accumulate_cpu(
    at::Tensor& fisher,
    const at::Tensor& input,
    const at::Tensor& grad_output,
    double weight) {
  check_linear_square_accumulate_(fisher, input, grad_output, weight);
  linear_square_accumulate_reference_(fisher, input, grad_output, weight);
}

TORCH_LIBRARY_IMPL(merganser, CPU, m) {
  m.impl("linear_square_accumulate_", &linear_square_accumulate_cpu);
}

TORCH_LIBRARY_IMPL(merganser, Meta, m) {
  m.impl("linear_square_accumulate_", &check_linear_square_accumulate_);
}

} // namespace
} // namespace merganser::ops
