// dropout and sample_labels: their definitions, and the statistics of their
// draws.

#include <gtest/gtest.h>

#include "merganser/ops/reference.h"
#include "support.h"

namespace merganser::ops {
namespace {

TEST(Dropout, EqualsItsDefinition) {
  at::manual_seed(0);
  for (const at::ScalarType type :
       {at::kFloat, at::kDouble, at::kBFloat16, at::kHalf}) {
    for (const int64_t size : {0, 1, 15, 16, 17, 127, 128, 129, 1000}) {
      const at::Tensor x = at::randn({size}, type);
      for (const double probability : {0.0, 0.1, 0.5, 1 - 0x1p-16}) {
        const at::Tensor y = dropout(x, probability, -7, 3);
        EXPECT_EQ(y.scalar_type(), type);
        // One rounding, of a float32 product or a float64 one.
        const double rounding = type == at::kBFloat16 ? 1e-2
            : type == at::kHalf                       ? 1e-3
                                                      : 1e-6;
        EXPECT_TRUE(at::allclose(
            y, dropout_reference(x, probability, -7, 3), rounding, 0))
            << type << " " << size << " " << probability;
      }
    }
  }
}

TEST(Dropout, IsTheSameForAnyNumberOfThreads) {
  const at::Tensor x = at::randn({1 << 18});
  const int threads = at::get_num_threads();
  const at::Tensor many = dropout(x, 0.1, 1, 2);
  at::set_num_threads(1);
  EXPECT_TRUE(at::equal(dropout(x, 0.1, 1, 2), many));
  at::set_num_threads(threads);
}

TEST(Dropout, NumbersElementsInRowMajorOrder) {
  const at::Tensor x = at::rand({40, 50}).t();
  EXPECT_TRUE(at::equal(
      dropout(x, 0.3, 0, 0),
      dropout(x.contiguous().view(-1), 0.3, 0, 0).view({50, 40})));
}

// Elements are kept with probability 1 - p, independently of each other and of
// other streams: within five standard errors.
TEST(Dropout, KeepsTheShareItShould) {
  const int64_t n = 1 << 20;
  const at::Tensor ones = at::ones({n});
  for (const double p : {0.05, 0.1, 0.5, 0.9}) {
    const at::Tensor y = dropout(ones, p, 9, 1);
    const auto mean = [](const at::Tensor& t) {
      return t.to(at::kDouble).mean().item<double>();
    };
    const double error = std::sqrt(p * (1 - p) / n);
    EXPECT_NEAR(mean(y.gt(0)), 1 - p, 5 * error + 0x1p-17);
    EXPECT_NEAR(mean(y), 1, 5 * error / (1 - p));
    for (const int64_t shift : {1, 8, 16, 128}) {
      const at::Tensor both =
          y.gt(0).narrow(0, shift, n - shift) & y.gt(0).narrow(0, 0, n - shift);
      EXPECT_NEAR(mean(both), (1 - p) * (1 - p), 5 * error + 0x1p-16) << shift;
    }
    for (const at::Tensor& other :
         {dropout(ones, p, 9, 2), dropout(ones, p, 10, 1)}) {
      EXPECT_NEAR(
          mean(y.gt(0) & other.gt(0)), (1 - p) * (1 - p), 5 * error + 0x1p-16);
    }
  }
}

TEST(Dropout, DropsWhatIsNotFinite) {
  const at::Tensor x = at::full({10000}, std::nan(""));
  EXPECT_EQ(
      dropout(x, 0.5, 0, 0).eq(0).sum().item<int64_t>(),
      dropout(at::ones_like(x), 0.5, 0, 0).eq(0).sum().item<int64_t>());
}

TEST(Dropout, DerivativeIsTheSameMask) {
  const at::Tensor x = at::randn({300}, at::kDouble).requires_grad_();
  const at::Tensor weights = at::randn({300}, at::kDouble);
  (dropout(x, 0.4, 5, 6) * weights).sum().backward();
  EXPECT_TRUE(at::equal(x.grad(), dropout(weights, 0.4, 5, 6)));
}

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
