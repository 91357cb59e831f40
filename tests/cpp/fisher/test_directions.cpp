#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "merganser/fisher/directions.h"

namespace merganser {
namespace {

// diag(p) - p p^T of each example, (B, K, K), float64.
at::Tensor covariance(const at::Tensor& logits) {
  const at::Tensor p = at::softmax(logits.to(at::kDouble), 1);
  return at::diag_embed(p) - p.unsqueeze(2) * p.unsqueeze(1);
}

at::Tensor second_moment(const std::vector<at::Tensor>& directions) {
  at::Tensor sum;
  for (const at::Tensor& v : directions) {
    const at::Tensor d = v.to(at::kDouble);
    const at::Tensor outer = d.unsqueeze(2) * d.unsqueeze(1);
    sum = sum.defined() ? sum + outer : outer;
  }
  return sum;
}

void expect_close(
    const at::Tensor& actual,
    const at::Tensor& expected,
    double rtol) {
  EXPECT_TRUE(at::allclose(actual, expected, rtol, /*atol=*/1e-300))
      << actual << "\n"
      << expected;
}

TEST(ExactDirections, HaveTheSecondMomentOfTheGradient) {
  at::manual_seed(0);
  for (const int64_t classes : {2, 3, 7}) {
    const at::Tensor logits = at::randn({16, classes}, at::kDouble) * 4;
    const auto directions = exact_directions(logits);
    EXPECT_EQ(static_cast<int64_t>(directions.size()), classes - 1);
    expect_close(second_moment(directions), covariance(logits), 1e-10);
  }
}

TEST(ExactDirections, OfTwoClasses) {
  const at::Tensor logits = at::tensor({0.0, std::log(3.0)}).view({1, 2});
  const at::Tensor v = exact_directions(logits)[0];
  const double expected = std::sqrt(0.25 * 0.75);
  expect_close(v.abs(), at::full({1, 2}, expected, v.options()), 1e-6);
  EXPECT_EQ(v.sum().item<double>(), 0);
}

// float32 probabilities would round 1 - p to zero.
TEST(ExactDirections, KeepTheirDigitsWhereOneClassIsNearlyCertain) {
  const at::Tensor logits = at::tensor({0.F, -40.F, -45.F}).view({1, 3});
  for (const int64_t shift : {0, 1, 2}) {
    const at::Tensor rolled = logits.roll(shift, 1);
    const at::Tensor p = at::softmax(rolled.to(at::kDouble), 1)[0];
    const at::Tensor moment = second_moment(exact_directions(rolled))[0];
    for (const int64_t k : {0, 1, 2}) {
      const double pk = p[k].item<double>();
      double others = 0;
      for (const int64_t j : {0, 1, 2}) {
        others += j == k ? 0 : p[j].item<double>();
      }
      EXPECT_NEAR(moment[k][k].item<double>(), pk * others, 1e-5 * pk * others);
    }
  }
}

TEST(ExactDirections, AreFiniteWhereProbabilitiesUnderflow) {
  const at::Tensor logits = at::tensor({1e4F, 0.F, -1e4F}).view({1, 3});
  for (const int64_t shift : {0, 1, 2}) {
    for (const at::Tensor& v : exact_directions(logits.roll(shift, 1))) {
      EXPECT_EQ(v.abs().max().item<double>(), 0);
    }
  }
}

TEST(LabelDirection, IsTheGradientOfTheLogProbability) {
  at::manual_seed(0);
  const at::Tensor logits = at::randn({5, 4}, at::kDouble).requires_grad_(true);
  const at::Tensor labels = at::tensor({3, 0, 1, 3, 2}, at::kLong);
  at::log_softmax(logits, 1).gather(1, labels.unsqueeze(1)).sum().backward();
  expect_close(label_direction(logits, labels), logits.grad(), 1e-12);
}

} // namespace
} // namespace merganser
