// fisher (out, in) += weight * sum_i (D_i^T A_i)^2: the weight gradient of each
// example, squared. No buffer has both an example and a weight dimension.
// Tokens without a gradient (padding; in a classifier's last layer, all but
// one) are skipped.

#include <ATen/Parallel.h>

#include <algorithm>
#include <iterator>
#include <limits>
#include <vector>

#include "merganser/ops/checks.h"
#include "merganser/ops/cpu_kernels.h"
#include "merganser/ops/dispatch.h"
#include "merganser/ops/reference.h"
#include "merganser/ops/square_products.h"

namespace merganser::ops {

void linear_square_accumulate_reference_(
    at::Tensor& fisher,
    const at::Tensor& input,
    const at::Tensor& grad_output,
    double weight) {
  const at::Tensor d = as_tokens(grad_output).to(fisher.scalar_type());
  const at::Tensor a =
      without_idle_tokens(as_tokens(input).to(fisher.scalar_type()), d);
  for (int64_t i = 0; i < a.size(0); ++i) {
    fisher.add_(d[i].t().mm(a[i]).square().mul(weight));
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
      "the leading dimensions of grad_output",
      grad_output.select(-1, 0),
      input.select(-1, 0).sizes());
  check_weight(kOp, weight);
}

at::Tensor without_idle_tokens(
    const at::Tensor& input,
    const at::Tensor& output) {
  return input.masked_fill(output.eq(0).all(-1, /*keepdim=*/true), 0);
}

void accumulate_single_tokens(
    at::Tensor& fisher,
    const at::Tensor& input,
    const at::Tensor& output,
    double weight) {
  const at::Tensor a = input.to(fisher.scalar_type()).square();
  const at::Tensor d = output.to(fisher.scalar_type()).square();
  fisher.addmm_(d.t(), a, 1, weight);
}

namespace {

// Float32 products are faster below this mean number of tokens.
constexpr int64_t kTokensForBf16 = 6;

// Cost of packing one number, in multiplications.
constexpr int64_t kPackCost = 16;

// Size of the largest of `parts` parts, a multiple of kBlockStep.
int64_t share(int64_t size, int64_t parts) {
  const int64_t step = parts * kBlockStep;
  return (size + step - 1) / step * kBlockStep;
}

// Cuts a matrix (rows, columns) along both sides into at most one block per
// thread, so that the largest block costs as little as possible.
std::vector<Block> cut_into_blocks(int64_t rows, int64_t columns) {
  const int64_t threads = at::get_num_threads();
  std::vector<Block> blocks;
  int64_t min_cost = std::numeric_limits<int64_t>::max();
  for (int64_t parts = 1; parts <= threads; ++parts) {
    const int64_t height = share(rows, parts);
    const int64_t width = share(columns, threads / parts);
    const int64_t cost = height * width + kPackCost * (height + width);
    if (cost >= min_cost) {
      continue;
    }
    min_cost = cost;
    blocks.clear();
    for (int64_t i = 0; i < rows; i += height) {
      for (int64_t j = 0; j < columns; j += width) {
        blocks.push_back(
            {i, std::min(i + height, rows), j, std::min(j + width, columns)});
      }
    }
  }
  return blocks;
}

} // namespace

void linear_square_accumulate_cpu(
    at::Tensor& fisher,
    const at::Tensor& input,
    const at::Tensor& grad_output,
    double weight) {
  check_linear_square_accumulate_(fisher, input, grad_output, weight);
  const auto [a, d] = kernel_inputs(input, grad_output, fisher.scalar_type());
  const int64_t rows = fisher.size(0);
  const int64_t columns = fisher.size(1);
  dispatch_types(fisher, a, [&, a = a, d = d]<typename T, typename In>() {
    const auto examples = ExampleTokens::nonzero(
        d.const_data_ptr<In>(), d.size(0), d.size(1), rows);
    if (examples.longest() <= 1) {
      const std::vector<int64_t>& all = examples.all();
      const at::Tensor tokens = a.new_empty({std::ssize(all)}, at::kLong);
      std::copy(all.begin(), all.end(), tokens.data_ptr<int64_t>());
      accumulate_single_tokens(
          fisher,
          a.flatten(0, 1).index_select(0, tokens),
          d.flatten(0, 1).index_select(0, tokens),
          weight);
      return;
    }
    const SquareProducts<T, In> products{
        .fisher = fisher.data_ptr<T>(),
        .input = a.const_data_ptr<In>(),
        .output = d.const_data_ptr<In>(),
        .examples = examples,
        .rows = rows,
        .columns = columns,
        .weight = static_cast<T>(weight)};
    auto* add = &add_squares<T, In>;
    if constexpr (std::is_same_v<In, c10::BFloat16>) {
      if (std::ssize(examples.all()) >= kTokensForBf16 * examples.size() &&
          has_bf16_products()) {
        add = &add_squares_bf16;
      }
    }
    const std::vector<Block> blocks = cut_into_blocks(rows, columns);
    at::parallel_for(0, std::ssize(blocks), 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        add(products, blocks[i]);
      }
    });
  });
}

} // namespace merganser::ops
