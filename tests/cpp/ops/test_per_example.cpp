// Ops that square per example, compared with their definitions in float64;
// their bits with several numbers of threads.

#include <gtest/gtest.h>

#include <functional>

#include "merganser/ops/reference.h"
#include "support.h"

namespace merganser::ops {
namespace {

struct Shape {
  int64_t examples;
  int64_t tokens; // 0: inputs without a token dimension
  int64_t in;
  int64_t out;
};

const Shape kShapes[] = {
    {0, 3, 8, 8},
    {3, 0, 8, 8},
    {1, 1, 1, 1},
    {5, 1, 7, 3},
    {3, 4, 32, 12}, // whole tiles
    {3, 4, 33, 13}, // one more
    {2, 5, 31, 11}, // one less
    {4, 9, 100, 130},
    {40, 16, 64, 96}, // several groups of examples
    {2, 300, 70, 50},
    {3, 2, 1, 257},
    {3, 2, 257, 1},
};

at::Tensor tokens(const Shape& s, int64_t channels, at::ScalarType type) {
  // Transposed: a kernel that ignores strides fails.
  return at::randn({s.tokens, s.examples, channels}).transpose(0, 1).to(type);
}

void expect_close(const at::Tensor& actual, const at::Tensor& expected) {
  // Tolerances of torch.testing.assert_close for float32, also for half inputs:
  // these are exact in float32, and sums are float32.
  const double rtol = actual.scalar_type() == at::kDouble ? 1e-7 : 1.3e-6;
  const double scale =
      expected.numel() ? expected.abs().max().item<double>() : 0;
  // The square of a sum that cancels is as exact as its largest terms.
  EXPECT_TRUE(at::allclose(
      actual.to(at::kDouble), expected, rtol, 1e-5 * std::max(scale, 1e-30)))
      << (actual - expected).abs().max() << " of " << scale;
}

using Accumulate = std::function<void(at::Tensor&)>;

// Compares `fused` with `definition`, which add to a Fisher of the given size;
// the definition runs in float64.
void check(
    at::IntArrayRef size,
    at::ScalarType type,
    const Accumulate& fused,
    const Accumulate& definition) {
  const at::Tensor start = at::rand(size, type);
  at::Tensor expected = start.to(at::kDouble).clone();
  definition(expected);
  std::optional<at::Tensor> first;
  for (const int threads : {1, 2, 5}) {
    const Threads scope(threads);
    at::Tensor actual = start.clone();
    fused(actual);
    expect_close(actual, expected);
    first = first.value_or(actual);
    EXPECT_TRUE(same_bits(actual, *first)) << threads << " threads";
  }
}

template <typename Test>
void for_all_shapes(Test test) {
  at::manual_seed(0);
  for (const Shape& s : kShapes) {
    for (const at::ScalarType type : kInputTypes) {
      SCOPED_TRACE(
          testing::Message() << s.examples << " x " << s.tokens << ", in "
                             << s.in << ", out " << s.out << ", " << type);
      test(s, type, at::kFloat);
      test(s, type, at::kDouble);
    }
    test(s, at::kDouble, at::kDouble);
  }
}

TEST(LinearSquareAccumulate, EqualsItsDefinition) {
  for_all_shapes([](const Shape& s, at::ScalarType in, at::ScalarType out) {
    const at::Tensor a = tokens(s, s.in, in);
    const at::Tensor d = tokens(s, s.out, in);
    check(
        {s.out, s.in},
        out,
        [&](at::Tensor& f) { linear_square_accumulate_(f, a, d, 0.3); },
        [&](at::Tensor& f) {
          linear_square_accumulate_reference_(f, a, d, 0.3);
        });
  });
}

TEST(LinearSquareAccumulate, TakesInputsWithoutTokens) {
  const at::Tensor a = at::randn({9, 5});
  const at::Tensor d = at::randn({9, 7});
  at::Tensor actual = at::zeros({7, 5});
  linear_square_accumulate_(actual, a, d, 1);
  at::Tensor expected = at::zeros({7, 5}, at::kDouble);
  linear_square_accumulate_reference_(expected, a, d, 1);
  expect_close(actual, expected);
}

TEST(LinearSquareAccumulate, TakesInputsOfTwoTypes) {
  const at::Tensor a = at::randn({2, 3, 5}).to(at::kBFloat16);
  const at::Tensor d = at::randn({2, 3, 7});
  at::Tensor actual = at::zeros({7, 5});
  linear_square_accumulate_(actual, a, d, 1);
  at::Tensor expected = at::zeros({7, 5}, at::kDouble);
  linear_square_accumulate_reference_(expected, a, d, 1);
  expect_close(actual, expected);
}

TEST(LinearSquareAccumulate, SpreadsOnlyTheNanItIsGiven) {
  at::Tensor a = at::randn({2, 3, 40});
  at::Tensor d = at::randn({2, 3, 20});
  a[1][2][37] = std::numeric_limits<float>::quiet_NaN();
  d[0][1][19] = std::numeric_limits<float>::infinity();
  at::Tensor fisher = at::zeros({20, 40});
  linear_square_accumulate_(fisher, a, d, 1);
  const at::Tensor bad = fisher.isfinite().logical_not();
  EXPECT_TRUE(bad.select(1, 37).all().item<bool>());
  EXPECT_TRUE(bad.select(0, 19).all().item<bool>());
  EXPECT_EQ(bad.sum().item<int64_t>(), 20 + 40 - 1);
}

TEST(BiasSquareAccumulate, EqualsItsDefinition) {
  for_all_shapes([](const Shape& s, at::ScalarType in, at::ScalarType out) {
    const at::Tensor d = tokens(s, s.out, in);
    check(
        {s.out},
        out,
        [&](at::Tensor& f) { bias_square_accumulate_(f, d, 0.3); },
        [&](at::Tensor& f) { bias_square_accumulate_reference_(f, d, 0.3); });
  });
}

TEST(LayerNormSquareAccumulate, EqualsItsDefinition) {
  for_all_shapes([](const Shape& s, at::ScalarType in, at::ScalarType out) {
    const at::Tensor x = tokens(s, s.out, in);
    const at::Tensor d = tokens(s, s.out, in);
    check(
        {s.out},
        out,
        [&](at::Tensor& f) { layer_norm_square_accumulate_(f, x, d, 0.3); },
        [&](at::Tensor& f) {
          layer_norm_square_accumulate_reference_(f, x, d, 0.3);
        });
  });
}

TEST(EmbeddingSquareAccumulate, EqualsItsDefinition) {
  for_all_shapes([](const Shape& s, at::ScalarType in, at::ScalarType out) {
    for (const int64_t rows : {1, 30}) {
      const at::Tensor ids =
          at::randint(rows, {s.tokens, s.examples}, at::kLong).t();
      const at::Tensor d = tokens(s, s.out, in);
      for (const int64_t padding : {-1, 0}) {
        check(
            {rows, s.out},
            out,
            [&](at::Tensor& f) {
              embedding_square_accumulate_(f, ids, d, 0.3, padding);
            },
            [&](at::Tensor& f) {
              embedding_square_accumulate_reference_(f, ids, d, 0.3, padding);
            });
      }
    }
  });
}

} // namespace
} // namespace merganser::ops
