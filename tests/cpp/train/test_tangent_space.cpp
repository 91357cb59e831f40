#include "merganser/train/tangent_space.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "merganser/model/forward_mode.h"
#include "support/tiny_encoder.h"

namespace merganser {
namespace {

using test::tiny_encoder;
using test::TinyBatch;

class TangentSpaceTest : public ::testing::Test {
 protected:
  TangentSpaceTest() {
    at::manual_seed(0);
    model->eval();
  }

  // Moves every parameter as an optimiser's step does, and no gap between them.
  void move_theta() {
    for (const Arena::Entry& entry : arena.entries()) {
      at::Tensor theta = Arena::view(arena.parameters, entry);
      theta.add_(at::randn_like(theta), 0.1);
    }
  }

  at::Tensor logits() {
    return batch.logits(model).detach();
  }

  Encoder model = tiny_encoder(Architecture::kBert);
  TinyBatch batch;
  Arena arena{model->named_parameters()};
};

TEST_F(TangentSpaceTest, FollowsThetaToFirstOrderAndLeavesIntoIt) {
  const at::Tensor start = arena.parameters.clone();
  const at::Tensor at_start = logits();
  TangentSpace tangent_space(arena, model);
  EXPECT_TRUE(logits().equal(at_start));
  move_theta();
  EXPECT_TRUE(logits().equal(at_start)); // not updated yet
  tangent_space.update();
  const at::Tensor linear = logits();

  Encoder ordinary = tiny_encoder(Architecture::kBert);
  ordinary->eval();
  const Arena other(ordinary->named_parameters());
  std::vector<at::Tensor> tau;
  for (const auto& item : ordinary->named_parameters()) {
    for (const Arena::Entry& entry : other.entries()) {
      if (entry.name == item.key()) {
        tau.push_back(Arena::view(arena.parameters - start, entry).clone());
      }
    }
  }
  ordinary->set_displacement(tau);
  EXPECT_TRUE(at::allclose(linear, batch.logits(ordinary).detach()));

  tangent_space.leave();
  ordinary->set_displacement({});
  other.parameters.copy_(arena.parameters);
  EXPECT_TRUE(logits().equal(batch.logits(ordinary).detach()));
  EXPECT_FALSE(at::allclose(linear, logits(), 1e-2, 1e-2));
}

TEST_F(TangentSpaceTest, GradientsGoToTheArenaAndThetaStays) {
  TangentSpace tangent_space(arena, model);
  move_theta();
  tangent_space.update();
  const at::Tensor theta = arena.parameters.clone();
  batch.logits(model).square().sum().backward();
  EXPECT_TRUE(arena.parameters.equal(theta));
  for (const auto& item : model->named_parameters()) {
    for (const Arena::Entry& entry : arena.entries()) {
      if (entry.name == item.key()) {
        EXPECT_TRUE(
            item.value().grad().equal(Arena::view(arena.gradients, entry)));
      }
    }
  }
  EXPECT_GT(arena.gradients.norm().item<float>(), 0);
}

// A tangent with another layout is copied, once per tensor and forward pass.
TEST_F(TangentSpaceTest, TorchCopiesNoTangent) {
  const at::Tensor flat = arena.zeros();
  for (const auto& item : model->named_parameters()) {
    for (const Arena::Entry& entry : arena.entries()) {
      if (entry.name == item.key()) {
        const at::Tensor tangent = Arena::view(flat, entry);
        const ForwardMode forward_mode({item.value()}, {tangent});
        EXPECT_EQ(
            forward_mode.tangent(item.value()).data_ptr(), tangent.data_ptr());
      }
    }
  }
}

} // namespace
} // namespace merganser
