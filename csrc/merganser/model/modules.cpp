#include "merganser/model/modules.h"

#include <ATen/ATen.h>

namespace merganser::modules {

Linear::Linear(int64_t in, int64_t out)
    : weight(register_parameter("weight", at::zeros({out, in}))),
      bias(register_parameter("bias", at::zeros({out}))) {}

at::Tensor Linear::forward(const at::Tensor& input, const Pass& pass) const {
  if (pass.watch != nullptr) {
    (*pass.watch)(weight, input);
  }
  return layers::linear(input, weight, bias, pass.sink);
}

LayerNorm::LayerNorm(int64_t size, double eps)
    : weight(register_parameter("weight", at::zeros({size}))),
      bias(register_parameter("bias", at::zeros({size}))),
      eps(eps) {}

at::Tensor LayerNorm::forward(const at::Tensor& input, const Pass& pass) const {
  return layers::layer_norm(input, weight, bias, eps, pass.sink);
}

Embedding::Embedding(int64_t rows, int64_t size, int64_t padding_idx)
    : weight(register_parameter("weight", at::zeros({rows, size}))),
      padding_idx(padding_idx) {}

at::Tensor Embedding::forward(const at::Tensor& indices, const Pass& pass)
    const {
  return layers::embedding(indices, weight, padding_idx, pass.sink);
}

} // namespace merganser::modules
