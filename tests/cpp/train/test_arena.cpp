#include <gtest/gtest.h>

#include <cstdint>

#include "merganser/train/arena.h"
#include "train/two_layers.h"

namespace merganser {
namespace {

using testing::TwoLayers;

class ArenaTest : public ::testing::Test {
 protected:
  ArenaTest() {
    at::manual_seed(1);
  }

  const Arena::Entry& entry(const Arena& arena, const std::string& name) {
    for (const Arena::Entry& entry : arena.entries()) {
      if (entry.name == name) {
        return entry;
      }
    }
    throw std::out_of_range(name);
  }

  at::Tensor loss(const TwoLayers& net) {
    return net.forward(at::ones({2, 5})).square().sum();
  }
};

TEST_F(ArenaTest, KeepsValuesAndShapes) {
  TwoLayers net;
  std::vector<at::Tensor> before;
  for (const at::Tensor& parameter : net.parameters()) {
    before.push_back(parameter.detach().clone());
  }
  const Arena arena(net.named_parameters());
  size_t i = 0;
  for (const auto& item : net.named_parameters()) {
    EXPECT_TRUE(item.value().equal(before[i])) << item.key();
    EXPECT_TRUE(Arena::view(arena.parameters, entry(arena, item.key()))
                    .equal(before[i]));
    i++;
  }
}

TEST_F(ArenaTest, DecayedParametersComeFirst) {
  TwoLayers net;
  const Arena arena(net.named_parameters());
  std::vector<std::string> decayed;
  for (const Arena::Entry& entry : arena.entries()) {
    if (entry.offset < arena.decayed) {
      EXPECT_LE(entry.offset + entry.numel, arena.decayed);
      decayed.push_back(entry.name);
    }
  }
  EXPECT_EQ(decayed, (std::vector<std::string>{"weight1", "weight2"}));
}

TEST_F(ArenaTest, TensorsAreAlignedAndGapsAreZero) {
  TwoLayers net;
  const Arena arena(net.named_parameters());
  at::Tensor covered = arena.zeros();
  for (const Arena::Entry& entry : arena.entries()) {
    const at::Tensor view = Arena::view(arena.parameters, entry);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(view.data_ptr()) % 64, 0u);
    Arena::view(covered, entry).add_(1);
  }
  EXPECT_EQ(covered.max().item<float>(), 1); // no overlaps
  EXPECT_EQ(arena.parameters.mul(1 - covered).abs().sum().item<float>(), 0);
}

TEST_F(ArenaTest, BackwardAddsToTheArenaInPlace) {
  TwoLayers reference;
  TwoLayers net;
  {
    at::NoGradGuard no_grad;
    for (auto& item : net.named_parameters()) {
      item.value().copy_(reference.named_parameters()[item.key()]);
    }
  }
  const Arena arena(net.named_parameters());
  for (int passes = 1; passes <= 2; passes++) {
    loss(net).backward();
    loss(reference).backward();
    for (const auto& item : reference.named_parameters()) {
      EXPECT_TRUE(Arena::view(arena.gradients, entry(arena, item.key()))
                      .equal(item.value().grad()))
          << item.key() << ", pass " << passes;
    }
  }
  arena.gradients.zero_();
  EXPECT_EQ(net.weight1.grad().abs().sum().item<float>(), 0);
  loss(net).backward();
  EXPECT_GT(
      Arena::view(arena.gradients, entry(arena, "weight1"))
          .abs()
          .sum()
          .item<float>(),
      0);
}

TEST_F(ArenaTest, TheModuleComputesWithTheArena) {
  TwoLayers net;
  const Arena arena(net.named_parameters());
  arena.parameters.zero_();
  EXPECT_EQ(loss(net).item<float>(), 0);
}

} // namespace
} // namespace merganser
