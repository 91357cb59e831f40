#include <gtest/gtest.h>

#include "merganser/ops/reference.h"
#include "support.h"

namespace merganser::ops {
namespace {

TEST(SampleLabels, EqualItsDefinition) {
  at::manual_seed(0);
  for (const int64_t labels : {1, 2, 5, 300}) {
    for (const at::ScalarType type : {at::kFloat, at::kDouble}) {
      const at::Tensor p =
          at::randn({500, labels}, type).mul(3).softmax(1).to(type);
      const at::Tensor indices = at::randint(1 << 30, {500}, at::kLong);
      EXPECT_TRUE(at::equal(
          sample_labels(p, indices, -5, 3),
          sample_labels_reference(p, indices, -5, 3)));
    }
  }
}

TEST(SampleLabels, NeverDrawWhatHasNoProbability) {
  const at::Tensor p = at::zeros({1000, 4});
  p.select(1, 2).fill_(1);
  const at::Tensor drawn = sample_labels(p, at::arange(1000), 0, 0);
  EXPECT_TRUE(drawn.eq(2).all().item<bool>());
}

TEST(SampleLabels, TakeAnEmptyBatch) {
  const at::Tensor none = at::empty({0}, at::kLong);
  EXPECT_EQ(sample_labels(at::empty({0, 3}), none, 0, 0).numel(), 0);
}

} // namespace
} // namespace merganser::ops
