#include "merganser/objective/mismatch_norms.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>

namespace merganser {
namespace {

TEST(MismatchNorms, CoordinatesWithoutPrecisionAreLeftOutAndCounted) {
  const at::Tensor m = at::tensor({3.0f, 4.0f, 12.0f});
  const at::Tensor explained = at::tensor({1.0f, 0.0f, 10.0f});
  const at::Tensor h0 = at::tensor({0.0f, 4.0f, 9.0f});
  SquareTotals totals;
  totals.add(m, explained, h0, 0, 3);
  const MismatchNorms norms = totals.norms();
  EXPECT_DOUBLE_EQ(norms.mismatch.two, 13);
  EXPECT_DOUBLE_EQ(*norms.mismatch.inverse_h0, std::sqrt(16.0 / 4 + 144.0 / 9));
  EXPECT_DOUBLE_EQ(norms.explained->two, std::sqrt(101.0));
  EXPECT_DOUBLE_EQ(norms.rest->two, std::sqrt(4.0 + 16 + 4));
  EXPECT_DOUBLE_EQ(*norms.rest->inverse_h0, std::sqrt(16.0 / 4 + 4.0 / 9));
  EXPECT_DOUBLE_EQ(*norms.share_without_h0, 9.0 / 169);
}

TEST(MismatchNorms, PrecisionsOfRoundingAreZero) {
  // Mean 1 over four parameters; the last two elements are a gap.
  const at::Tensor h0 =
      at::tensor({4.0f, 0.9e-12f, 1.1e-12f, 0.0f, 0.0f, 0.0f});
  clear_rounding(h0, 4);
  EXPECT_EQ(h0[0].item<float>(), 4.0f);
  EXPECT_EQ(h0[1].item<float>(), 0.0f);
  EXPECT_EQ(h0[2].item<float>(), 1.1e-12f);
}

TEST(MismatchNorms, WithoutFishers) {
  SquareTotals totals;
  totals.add(at::tensor({1.0f, 3.0f, 4.0f}), {}, {}, 1, 2);
  EXPECT_DOUBLE_EQ(totals.norms().mismatch.two, 5);
  EXPECT_FALSE(totals.norms().mismatch.inverse_h0);
  EXPECT_FALSE(totals.norms().explained);
  EXPECT_FALSE(totals.norms().share_without_h0);
}

TEST(MismatchNorms, TotalsAddUp) {
  const at::Tensor m = at::randn({50});
  const at::Tensor explained = at::randn({50});
  const at::Tensor h0 = at::rand({50});
  SquareTotals whole, parts, first, second;
  whole.add(m, explained, h0, 0, 50);
  first.add(m, explained, h0, 0, 20);
  second.add(m, explained, h0, 20, 30);
  parts.add(first);
  parts.add(second);
  EXPECT_NEAR(
      *parts.norms().rest->inverse_h0, *whole.norms().rest->inverse_h0, 1e-9);
  EXPECT_NEAR(parts.norms().mismatch.two, whole.norms().mismatch.two, 1e-12);
}

TEST(TargetIdentity, IsExactOnAQuadratic) {
  // l(x) = 1/2 H (x - c)^2 and 1/2 h0 x^2: the expert minimises l + the base.
  const double h0 = 2;
  const double h = 3;
  const double c = 1.5;
  const double expert = h * c / (h0 + h);
  const double target = expert; // one task
  const double arithmetic = expert;
  const double m = h * (target - c) - h * (expert - c);
  const auto vector = [](double value) {
    return at::tensor({static_cast<float>(value), 0.0f});
  };
  const TargetIdentity same = compare_identity(
      vector(target), vector(arithmetic), vector(m), vector(h0));
  EXPECT_DOUBLE_EQ(same.difference, 0);

  // Two such tasks: theta_TA = 2 expert.
  const double joint = 2 * h * c / (h0 + 2 * h);
  const double m2 = 2 * h * (joint - expert);
  const TargetIdentity two = compare_identity(
      vector(joint), vector(2 * expert), vector(m2), vector(h0));
  EXPECT_NEAR(two.left, std::abs(joint - 2 * expert), 1e-6);
  EXPECT_NEAR(two.right, two.left, 1e-6);
  EXPECT_NEAR(two.difference, 0, 1e-6);
  EXPECT_NEAR(two.cosine, 1, 1e-12);
}

} // namespace
} // namespace merganser
