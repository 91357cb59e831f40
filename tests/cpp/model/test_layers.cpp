// A layer's backward pass with a sink gives the input's gradient as without,
// and squares of each example's own parameter gradients. The oracle is ordinary
// autograd on one example at a time.

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <functional>

#include "expect_close.h"
#include "merganser/model/layers.h"

namespace merganser {
namespace {

using Tensors = std::vector<at::Tensor>;
using LayerFunction = std::function<at::Tensor(
    const at::Tensor& input,
    const Tensors& parameters,
    GradientSink* sink)>;

at::Tensor parameter(at::IntArrayRef shape) {
  return at::randn(shape).requires_grad_(true);
}

void expect_squares_per_example(
    const LayerFunction& layer,
    const at::Tensor& input,
    const Tensors& parameters) {
  Tensors expected;
  Tensors sums;
  FisherSink sink;
  for (const at::Tensor& p : parameters) {
    expected.push_back(at::zeros_like(p));
    sums.push_back(at::zeros(p.sizes()));
    sink.add(p, sums.back());
  }
  const at::Tensor ordinary = layer(input, parameters, nullptr);
  const at::Tensor v = at::randn(ordinary.sizes());
  for (int64_t i = 0; i < input.size(0); ++i) {
    const at::Tensor one = layer(input.narrow(0, i, 1), parameters, nullptr);
    const Tensors gradients =
        torch::autograd::grad({one}, parameters, {v.narrow(0, i, 1)});
    for (size_t p = 0; p < parameters.size(); ++p) {
      expected[p] += gradients[p].square();
    }
  }

  sink.begin_forward();
  const at::Tensor output = layer(input, parameters, &sink);
  expect_close(output.detach(), ordinary.detach());
  if (input.requires_grad()) {
    const auto grad = torch::autograd::grad({output}, {input}, {v})[0];
    expect_close(grad, torch::autograd::grad({ordinary}, {input}, {v})[0]);
  } else {
    output.backward(v);
  }
  for (size_t p = 0; p < parameters.size(); ++p) {
    expect_close(sums[p], expected[p].detach());
    EXPECT_FALSE(parameters[p].grad().defined());
  }
}

TEST(Layers, LinearSquaresPerExample) {
  at::manual_seed(0);
  const LayerFunction linear =
      [](const auto& input, const auto& p, auto* sink) {
        return layers::linear(input, p[0], p[1], sink);
      };
  for (const int64_t length : {1, 5}) {
    expect_squares_per_example(
        linear, parameter({4, length, 6}), {parameter({3, 6}), parameter({3})});
  }
  expect_squares_per_example(
      linear, parameter({4, 6}), {parameter({3, 6}), parameter({3})});
}

TEST(Layers, LayerNormSquaresPerExample) {
  at::manual_seed(0);
  expect_squares_per_example(
      [](const auto& input, const auto& p, auto* sink) {
        return layers::layer_norm(input, p[0], p[1], 1e-5, sink);
      },
      parameter({4, 5, 6}),
      {parameter({6}), parameter({6})});
}

TEST(Layers, EmbeddingSquaresPerExample) {
  at::manual_seed(0);
  // Tokens that occur twice in one example, in two examples, and padding (0).
  const at::Tensor indices =
      at::tensor({3, 5, 3, 0, 5, 5, 5, 0, 1, 2, 3, 4}, at::kLong).view({3, 4});
  expect_squares_per_example(
      [](const auto& input, const auto& p, auto* sink) {
        return layers::embedding(input, p[0], /*padding_idx=*/0, sink);
      },
      indices,
      {parameter({6, 7})});
}

TEST(Layers, ParametersThatAreNotWantedAreNotSquared) {
  const at::Tensor weight = parameter({3, 6});
  const at::Tensor bias = parameter({3});
  const at::Tensor input = parameter({2, 6});
  const at::Tensor sum = at::zeros({3});
  FisherSink sink;
  sink.add(bias, sum);
  layers::linear(input, weight, bias, &sink).sum().backward();
  expect_close(sum, at::full({3}, 2.0));
  EXPECT_TRUE(input.grad().defined());
}

TEST(GradientSink, RefusesAParameterThatTwoLayersShare) {
  const at::Tensor weight = parameter({6, 6});
  const at::Tensor bias = parameter({6});
  FisherSink sink;
  sink.begin_forward();
  const at::Tensor once =
      layers::linear(at::randn({2, 6}), weight, bias, &sink);
  EXPECT_THROW(layers::linear(once, weight, bias, &sink), c10::Error);
  sink.begin_forward();
  EXPECT_NO_THROW(layers::linear(once, weight, bias, &sink));
}

TEST(FisherSink, RefusesAnAccumulatorOfAnotherShape) {
  FisherSink sink;
  EXPECT_THROW(sink.add(parameter({2, 3}), at::zeros({3, 2})), c10::Error);
}

} // namespace
} // namespace merganser
