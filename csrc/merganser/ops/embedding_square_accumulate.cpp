// fisher (V, D) += weight * sum_i sum_v (sum_{l: id_il = v} D_il)^2: the tokens
// of an example that share a row of the table add up before the square. Sorting
// groups them, so that no (B, V, D) buffer is needed.

#include <ATen/Parallel.h>

#include <algorithm>
#include <numeric>
#include <vector>

#include "merganser/numeric/simd.h"
#include "merganser/ops/checks.h"
#include "merganser/ops/cpu_kernels.h"
#include "merganser/ops/dispatch.h"
#include "merganser/ops/reference.h"
#include "merganser/ops/token_sums.h"

namespace merganser::ops {

void embedding_square_accumulate_reference_(
    at::Tensor& fisher,
    const at::Tensor& indices,
    const at::Tensor& grad_output,
    double weight,
    int64_t padding_idx) {
  const at::Tensor d = grad_output.to(fisher.scalar_type());
  for (int64_t i = 0; i < indices.size(0); ++i) {
    at::Tensor gradient = fisher.new_zeros(fisher.sizes());
    gradient.index_add_(0, indices[i], d[i]);
    if (padding_idx >= 0) {
      gradient[padding_idx].zero_();
    }
    fisher.add_(gradient.square().mul(weight));
  }
}

void check_embedding_square_accumulate_(
    at::Tensor& fisher,
    const at::Tensor& indices,
    const at::Tensor& grad_output,
    double weight,
    int64_t padding_idx) {
  constexpr const char* kOp = "embedding_square_accumulate_";
  check_accumulator(kOp, "fisher", fisher);
  check_dim(kOp, "fisher", fisher, 2);
  check_indices(kOp, "indices", indices, fisher);
  check_dim(kOp, "indices", indices, 2);
  check_input(kOp, "grad_output", grad_output, fisher);
  check_shape(
      kOp,
      "grad_output",
      grad_output,
      {indices.size(0), indices.size(1), fisher.size(1)});
  check_weight(kOp, weight);
  TORCH_CHECK(
      padding_idx < fisher.size(0),
      kOp,
      ": padding_idx must be below ",
      fisher.size(0),
      ", the number of rows of fisher, or negative for none, got ",
      padding_idx);
}

namespace {

// Sorts the positions of each example by token id; equal ids keep the order of
// the text.
std::vector<int64_t> sort_positions(
    const int64_t* ids,
    int64_t examples,
    int64_t tokens) {
  std::vector<int64_t> order(examples * tokens);
  at::parallel_for(0, examples, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t* const id = ids + i * tokens;
      const auto first = order.begin() + i * tokens;
      std::iota(first, first + tokens, int64_t{0});
      std::sort(first, first + tokens, [id](int64_t a, int64_t b) {
        return id[a] != id[b] ? id[a] < id[b] : a < b;
      });
    }
  });
  return order;
}

void check_rows(const at::Tensor& indices, int64_t rows) {
  if (indices.numel() == 0) {
    return;
  }
  const auto [low, high] = indices.aminmax();
  for (const int64_t id : {low.item<int64_t>(), high.item<int64_t>()}) {
    TORCH_CHECK(
        id >= 0 && id < rows,
        "embedding_square_accumulate_: indices must lie in [0, ",
        rows,
        "), the range of the rows of fisher, got ",
        id);
  }
}

} // namespace

void embedding_square_accumulate_cpu(
    at::Tensor& fisher,
    const at::Tensor& indices,
    const at::Tensor& grad_output,
    double weight,
    int64_t padding_idx) {
  check_embedding_square_accumulate_(
      fisher, indices, grad_output, weight, padding_idx);
  check_rows(indices, fisher.size(0));
  const at::Tensor id = indices.contiguous();
  const at::Tensor output = kernel_input(grad_output, fisher.scalar_type());
  const int64_t examples = id.size(0);
  const int64_t tokens = id.size(1);
  const int64_t channels = fisher.size(1);
  const int64_t* const ids = id.const_data_ptr<int64_t>();
  const std::vector<int64_t> order = sort_positions(ids, examples, tokens);
  dispatch_types(fisher, output, [&]<typename T, typename In>() {
    T* const f = fisher.data_ptr<T>();
    const In* const d = output.const_data_ptr<In>();
    const T w = static_cast<T>(weight);
    // Each thread takes a range of channels, not of examples: two examples may
    // contain the same token.
    const auto accumulate = [&](int64_t begin, int64_t end) {
      std::vector<T> sums(end - begin);
      T* const s = sums.data();
      for (int64_t i = 0; i < examples; ++i) {
        const int64_t* const position = order.data() + i * tokens;
        int64_t next;
        for (int64_t l = 0; l < tokens; l = next) {
          const int64_t row = ids[i * tokens + position[l]];
          next = l;
          widest([&] {
            std::fill(s, s + (end - begin), T(0));
            for (; next < tokens && ids[i * tokens + position[next]] == row;
                 ++next) {
              const In* const x = d + (i * tokens + position[next]) * channels;
              for (int64_t c = begin; c < end; ++c) {
                s[c - begin] += static_cast<T>(x[c]);
              }
            }
            T* const y = f + row * channels;
            if (row != padding_idx) {
              for (int64_t c = begin; c < end; ++c) {
                y[c] += s[c - begin] * s[c - begin] * w;
              }
            }
          });
        }
      }
    };
    at::parallel_for(0, channels, channel_grain(examples, tokens), accumulate);
  });
}

} // namespace merganser::ops
