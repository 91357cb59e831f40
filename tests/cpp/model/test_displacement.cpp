// The first-order model of an encoder against finite differences of the
// ordinary one, in float64.

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include "expect_close.h"
#include "merganser/model/encoder.h"
#include "support/tiny_encoder.h"

namespace merganser {
namespace {

using Tensors = std::vector<at::Tensor>;
using test::tiny_encoder;
using test::TinyBatch;

Tensors random_like(const Tensors& tensors) {
  Tensors random;
  for (const at::Tensor& tensor : tensors) {
    random.push_back(at::randn_like(tensor.detach()));
  }
  return random;
}

void move(Encoder& model, const Tensors& direction, double step) {
  const at::NoGradGuard no_grad;
  const Tensors parameters = model->parameters();
  for (size_t i = 0; i < parameters.size(); ++i) {
    parameters[i].add_(direction[i], step);
  }
}

double inner(const Tensors& a, const Tensors& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    sum += (a[i] * b[i]).sum().item<double>();
  }
  return sum;
}

struct Case {
  std::string name;
  Architecture architecture;
  Activation activation;
};

class Displacement : public ::testing::TestWithParam<Case> {
 protected:
  Displacement() {
    at::manual_seed(0);
    model->to(at::kDouble);
    tau = random_like(model->parameters());
  }

  at::Tensor loss() {
    return at::cross_entropy_loss(batch.logits(model), batch.labels);
  }

  Encoder model = tiny_encoder(GetParam().architecture, GetParam().activation);
  TinyBatch batch;
  Tensors tau;
};

TEST_P(Displacement, AddsTheDerivativeInItsDirection) {
  constexpr double kStep = 1e-5;
  model->eval();
  const at::Tensor value = batch.logits(model).detach();
  move(model, tau, kStep);
  const at::Tensor above = batch.logits(model).detach();
  move(model, tau, -2 * kStep);
  const at::Tensor below = batch.logits(model).detach();
  move(model, tau, kStep);
  const at::Tensor slope = (above - below) / (2 * kStep);
  EXPECT_GT(slope.norm().item<double>(), 1);

  // Also in training mode: without dropout.
  for (const bool training : {false, true}) {
    model->train(training);
    model->set_displacement(tau);
    expect_close(batch.logits(model).detach(), value + slope);
    {
      const at::NoGradGuard no_grad;
      expect_close(batch.logits(model), value + slope);
    }
  }
  model->set_displacement({});
  model->eval();
  expect_close(batch.logits(model).detach(), value);
}

TEST_P(Displacement, BackwardGivesTheGradientInTau) {
  model->set_displacement(tau);
  loss().backward();
  Tensors gradients;
  for (const at::Tensor& parameter : model->parameters()) {
    gradients.push_back(parameter.grad());
  }
  // The loss is a function of tau alone: theta stays.
  constexpr double kStep = 1e-5;
  const Tensors direction = random_like(model->parameters());
  double sides[2];
  for (const int side : {0, 1}) {
    Tensors moved;
    for (size_t i = 0; i < tau.size(); ++i) {
      moved.push_back(tau[i] + (side == 0 ? -kStep : kStep) * direction[i]);
    }
    model->set_displacement(moved);
    sides[side] = loss().item<double>();
  }
  const double slope = (sides[1] - sides[0]) / (2 * kStep);
  EXPECT_GT(std::abs(slope), 1e-3);
  EXPECT_NEAR(inner(gradients, direction), slope, 1e-7 * std::abs(slope));
}

INSTANTIATE_TEST_SUITE_P(
    Encoders,
    Displacement,
    ::testing::Values(
        Case{"bert", Architecture::kBert, Activation::kGelu},
        Case{"roberta", Architecture::kRoberta, Activation::kGelu},
        Case{"gelu_tanh", Architecture::kBert, Activation::kGeluTanh},
        Case{"relu", Architecture::kBert, Activation::kRelu},
        Case{"silu", Architecture::kBert, Activation::kSilu},
        Case{"tanh", Architecture::kBert, Activation::kTanh}),
    [](const auto& info) { return info.param.name; });

TEST(DisplacementErrors, AreThrownAndLeaveTheModelUsable) {
  Encoder model = tiny_encoder(Architecture::kBert);
  const TinyBatch batch;
  model->eval();
  const at::Tensor value = batch.logits(model);
  Tensors tau = random_like(model->parameters());
  tau.pop_back();
  model->set_displacement(tau);
  EXPECT_THROW(batch.logits(model), c10::Error);
  tau.push_back(at::zeros({1, 1}));
  model->set_displacement(tau);
  EXPECT_THROW(batch.logits(model), c10::Error);
  model->set_displacement({});
  EXPECT_TRUE(batch.logits(model).equal(value));
}

} // namespace
} // namespace merganser
