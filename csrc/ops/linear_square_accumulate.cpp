// fisher (out, in) += weight * sum_i (D_i^T A_i)^2: the weight gradient of each
// example, squared. No buffer has both an example and a weight dimension.

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/library.h>

#include <algorithm>

#include "ops/checks.h"
#include "ops/dispatch.h"
#include "ops/dispatcher.h"
#include "ops/reference.h"
#include "ops/square_products.h"

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

void accumulate_single_tokens(
    at::Tensor& fisher,
    const at::Tensor& input,
    const at::Tensor& output,
    double weight) {
  const at::Tensor a = input.squeeze(1).to(fisher.scalar_type()).square();
  const at::Tensor d = output.squeeze(1).to(fisher.scalar_type()).square();
  fisher.addmm_(d.t(), a, 1, weight);
}

namespace {

// Rows of the weight matrix that a thread takes at least, if there are enough:
// it packs the inputs of every example for them.
constexpr int64_t kRowsPerTask = 48;

int64_t ceil_div(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}

void linear_square_accumulate_cpu(
    at::Tensor& fisher,
    const at::Tensor& input,
    const at::Tensor& grad_output,
    double weight) {
  check_linear_square_accumulate_(fisher, input, grad_output, weight);
  const auto [a, d] = kernel_inputs(input, grad_output, fisher.scalar_type());
  if (a.size(1) == 1) {
    accumulate_single_tokens(fisher, a, d, weight);
    return;
  }
  const int64_t rows = fisher.size(0);
  const int64_t columns = fisher.size(1);
  if (a.numel() == 0 || d.numel() == 0) {
    return;
  }
  const int64_t threads = at::get_num_threads();
  const int64_t row_tasks = std::min(threads, ceil_div(rows, kRowsPerTask));
  const int64_t column_tasks = std::min(columns, ceil_div(threads, row_tasks));
  dispatch_types(fisher, a, [&]<typename T, typename In>() {
    const SquareProducts<T, In> products{
        .fisher = fisher.data_ptr<T>(),
        .input = a.const_data_ptr<In>(),
        .output = d.const_data_ptr<In>(),
        .examples = a.size(0),
        .tokens = a.size(1),
        .rows = rows,
        .columns = columns,
        .weight = static_cast<T>(weight)};
    at::parallel_for(
        0, row_tasks * column_tasks, 1, [&](int64_t begin, int64_t end) {
          for (int64_t task = begin; task < end; ++task) {
            const int64_t i = task / column_tasks;
            const int64_t j = task % column_tasks;
            products.run(
                rows * i / row_tasks,
                rows * (i + 1) / row_tasks,
                columns * j / column_tasks,
                columns * (j + 1) / column_tasks);
          }
        });
  });
}

TORCH_LIBRARY_IMPL(merganser, CPU, m) {
  m.impl("linear_square_accumulate_", &linear_square_accumulate_cpu);
}

TORCH_LIBRARY_IMPL(merganser, Meta, m) {
  m.impl("linear_square_accumulate_", &check_linear_square_accumulate_);
}

} // namespace
} // namespace merganser::ops
