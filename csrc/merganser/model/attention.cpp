#include "merganser/model/attention.h"

#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>

#include <cmath>
#include <optional>

namespace merganser::layers {
namespace {

// (B, L, C) -> (B, H, L, D)
at::Tensor split_heads(const at::Tensor& tensor, int64_t heads) {
  return tensor.unflatten(-1, {heads, -1}).transpose(1, 2);
}

// (B, H, L, D) -> (B, L, C)
at::Tensor join_heads(const at::Tensor& tensor) {
  return tensor.transpose(1, 2).flatten(2);
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
  // torch's kernel computes blocks of the weights without storing them.
  if (draws == nullptr && c10::InferenceMode::is_enabled()) {
    std::optional<at::Tensor> bias;
    if (mask.defined()) {
      bias = mask.to(query.scalar_type());
    }
    return join_heads(at::scaled_dot_product_attention(
        split_heads(query, heads),
        split_heads(key, heads),
        split_heads(value, heads),
        bias));
  }
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
  return join_heads(at::matmul(weights, split_heads(value, heads)));
}

} // namespace merganser::layers
