#pragma once

#include <torch/nn/module.h>

#include "merganser/model/layers.h"

// The innermost submodules of the encoder. They hold the parameters; the
// functions of layers.h compute with them. The headers modules, embeddings and
// transformer are private to model/.
namespace merganser::modules {

// Arguments that one forward pass hands down to every layer.
struct Pass {
  at::Tensor mask; // (B, 1, 1, L), added to attention scores; undefined: none
  GradientSink* sink = nullptr;
  DropoutDraws* draws = nullptr; // null: eval mode, no dropout
  const WatchInputs* watch = nullptr; // called by every Linear
};

// Parameters are zero after construction; initialize.h and load.cpp set them.
struct Linear : torch::nn::Module {
  Linear(int64_t in, int64_t out);
  at::Tensor forward(const at::Tensor& input, const Pass& pass) const;
  at::Tensor weight, bias;
};

struct LayerNorm : torch::nn::Module {
  LayerNorm(int64_t size, double eps);
  at::Tensor forward(const at::Tensor& input, const Pass& pass) const;
  at::Tensor weight, bias;
  double eps;
};

struct Embedding : torch::nn::Module {
  Embedding(int64_t rows, int64_t size, int64_t padding_idx);
  at::Tensor forward(const at::Tensor& indices, const Pass& pass) const;
  at::Tensor weight;
  int64_t padding_idx;
};

} // namespace merganser::modules
