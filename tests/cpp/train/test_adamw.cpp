#include "merganser/train/adamw.h"

#include <gtest/gtest.h>
#include <torch/nn/utils/clip_grad.h>
#include <torch/optim/adamw.h>

#include "merganser/train/clipping.h"
#include "train/two_layers.h"

namespace merganser {
namespace {

using testing::TwoLayers;

// 100 steps of a regression with the arena and with torch::optim::AdamW.
class AdamWTest : public ::testing::TestWithParam<double> {
 protected:
  AdamWTest() {
    at::manual_seed(4);
    input_ = at::randn({16, 5});
    target_ = at::randn({16, 3});
  }

  at::Tensor loss(const TwoLayers& net) {
    return (net.forward(input_) - target_).square().mean();
  }

  at::Tensor input_, target_;
};

TEST_P(AdamWTest, EqualsTorch) {
  const double clip = GetParam();
  TrainOptions options;
  options.weight_decay = 0.1;
  TwoLayers reference;
  TwoLayers net;
  {
    at::NoGradGuard no_grad;
    for (auto& item : net.named_parameters()) {
      item.value().copy_(reference.named_parameters()[item.key()]);
    }
  }
  using torch::optim::AdamWOptions;
  const auto decay = [](double value) {
    return std::make_unique<AdamWOptions>(AdamWOptions().weight_decay(value));
  };
  torch::optim::AdamW peer(
      {torch::optim::OptimizerParamGroup(
           {reference.weight1, reference.weight2}, decay(0.1)),
       torch::optim::OptimizerParamGroup(
           {reference.bias1, reference.norm}, decay(0))});

  Arena arena(net.named_parameters());
  AdamW adamw(arena, options);
  const at::Tensor squares = arena.zeros();
  at::Tensor expected_squares = squares.to(at::kDouble);
  for (int step = 1; step <= 100; step++) {
    const double rate = 0.01 * step / 100;
    loss(net).backward();
    expected_squares += 3 * arena.gradients.to(at::kDouble).square();
    adamw.step(
        step,
        rate,
        clip_scale(flat_norm(arena.gradients), clip),
        AdamW::SquareSum{squares, 3});
    arena.gradients.zero_();

    peer.zero_grad();
    loss(reference).backward();
    if (clip > 0) {
      torch::nn::utils::clip_grad_norm_(reference.parameters(), clip);
    }
    for (auto& group : peer.param_groups()) {
      group.options().set_lr(rate);
    }
    peer.step();
  }
  for (const auto& item : reference.named_parameters()) {
    EXPECT_TRUE(at::allclose(
        net.named_parameters()[item.key()], item.value(), 1.3e-6, 1e-5))
        << item.key();
  }
  // Squares before clipping, in float32: 100 roundings.
  EXPECT_TRUE(at::allclose(
      squares.to(at::kDouble), expected_squares, /*rtol=*/1e-5, /*atol=*/0));
}

INSTANTIATE_TEST_SUITE_P(Clip, AdamWTest, ::testing::Values(0, 0.05));

} // namespace
} // namespace merganser
