#pragma once

#include <torch/nn/module.h>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

namespace merganser::testing {

// A small net with what the arena tells apart: matrices, biases, a LayerNorm;
// sizes that are no multiples of the arena's alignment.
struct TwoLayers : torch::nn::Module {
  TwoLayers() {
    const auto random = [&](const char* name, at::IntArrayRef shape) {
      return register_parameter(name, at::randn(shape));
    };
    bias1 = random("bias1", {7});
    weight1 = random("weight1", {7, 5});
    norm = random("norm", {7});
    weight2 = random("weight2", {3, 7});
  }

  at::Tensor forward(const at::Tensor& x) const {
    const at::Tensor hidden =
        at::layer_norm(at::linear(x, weight1, bias1), {7}, norm);
    return at::linear(at::gelu(hidden), weight2);
  }

  at::Tensor bias1, weight1, norm, weight2;
};

} // namespace merganser::testing
