#include "merganser/model/attention.h"

#include <ATen/ATen.h>

#include <cmath>

namespace merganser::layers {
namespace {

// (B, L, C) -> (B, H, L, D)
at::Tensor split_heads(const at::Tensor& tensor, int64_t heads) {
  return tensor.unflatten(-1, {heads, -1}).transpose(1, 2);
}

} // namespace

at::Tensor attention(
    const at::Tensor& query,
    const at::Tensor& key,
    const at::Tensor& value,
    const at::Tensor& mask,
    int64_t heads,
    double dropout_probability,
    DropoutDraws* draws) {
  const double head_size =
      static_cast<double>(query.size(-1)) / static_cast<double>(heads);
  const at::Tensor scaled = query * (1.0 / std::sqrt(head_size));
  at::Tensor scores = at::matmul(
      split_heads(scaled, heads), split_heads(key, heads).transpose(-2, -1));
  if (mask.defined()) {
    scores = scores + mask;
  }
  const at::Tensor weights =
      dropout(at::softmax(scores, -1), dropout_probability, draws);
  return at::matmul(weights, split_heads(value, heads))
      .transpose(1, 2)
      .flatten(2);
}

} // namespace merganser::layers
