// linear_square_accumulate_ with tokens that have no gradient, at the edges of
// its tiles, and for both kinds of bfloat16 products. (test_per_example.cpp
// compares it with its definition, like the other ops.)

#include <ATen/Context.h>
#include <gtest/gtest.h>

#include "merganser/ops/reference.h"
#include "support.h"

namespace merganser::ops {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();

// Tokens of each example that have a gradient.
using Kept = std::vector<std::vector<int64_t>>;

struct Batch {
  at::Tensor a; // (B, L, in), not finite for tokens without a gradient
  at::Tensor d; // (B, L, out), zeros of both signs for these
  at::Tensor squares; // (out, in) float64: the sum of squares by definition
};

// A tensor at an odd offset into its storage, and not contiguous.
at::Tensor strided(at::IntArrayRef shape, at::ScalarType type) {
  const at::Tensor storage =
      at::randn({shape[1] * shape[0] * shape[2] + 1}, at::kDouble).to(type);
  return storage.slice(0, 1)
      .view({shape[1], shape[0], shape[2]})
      .transpose(0, 1);
}

Batch make_batch(
    const Kept& kept,
    int64_t tokens,
    int64_t in,
    int64_t out,
    at::ScalarType type) {
  const auto examples = static_cast<int64_t>(kept.size());
  Batch batch{
      strided({examples, tokens, in}, type),
      strided({examples, tokens, out}, type),
      at::zeros({out, in}, at::kDouble)};
  const at::Tensor a = batch.a.to(at::kDouble).clone();
  const at::Tensor d = batch.d.to(at::kDouble).clone();
  batch.a.select(2, 0).fill_(kNan);
  batch.a.select(2, in - 1).fill_(kInfinity);
  batch.d.fill_(0.0).select(2, out - 1).fill_(-0.0);
  for (int64_t i = 0; i < examples; ++i) {
    at::Tensor gradient = at::zeros({out, in}, at::kDouble);
    for (const int64_t l : kept[i]) {
      gradient += at::outer(d[i][l], a[i][l]);
      batch.a[i][l].copy_(a[i][l]);
      batch.d[i][l].copy_(d[i][l]);
    }
    batch.squares += gradient.square();
  }
  return batch;
}

Kept all(int64_t examples, int64_t tokens) {
  std::vector<int64_t> each(tokens);
  for (int64_t l = 0; l < tokens; ++l) {
    each[l] = l;
  }
  return Kept(examples, each);
}

void expect_squares(const at::Tensor& actual, const at::Tensor& expected) {
  // Relative to the max: a sum may cancel.
  const double scale = expected.abs().max().item<double>();
  EXPECT_LE(
      (actual - expected).abs().max().item<double>(),
      scale * (actual.scalar_type() == at::kDouble ? 1e-12 : 1e-5));
}

void check(const Batch& batch, at::ScalarType type) {
  std::optional<at::Tensor> first;
  for (const int threads : {1, 2, 3}) {
    const Threads scope(threads);
    at::Tensor fisher = at::zeros(batch.squares.sizes(), type);
    linear_square_accumulate_(fisher, batch.a, batch.d, 0.25);
    expect_squares(fisher, 0.25 * batch.squares);
    first = first.value_or(fisher);
    EXPECT_TRUE(same_bits(fisher, *first)) << threads << " threads";
  }
  at::Tensor fisher = at::zeros(batch.squares.sizes(), at::kDouble);
  linear_square_accumulate_reference_(fisher, batch.a, batch.d, 0.25);
  expect_squares(fisher, 0.25 * batch.squares);
}

TEST(LinearSquareAccumulate, SkipsTokensWithoutGradient) {
  at::manual_seed(0);
  const Kept everything = all(1, 40);
  const Kept patterns[] = {
      {{3, 4, 5, 6, 7, 8, 9}, {3, 4, 5, 6, 7, 8}}, // none at the start
      {{0, 1, 2, 3, 4, 5, 6}, {0, 1, 2, 3, 4, 5, 6, 7}}, // nor at the end
      {{0, 5, 9, 11, 20, 30, 39}, everything[0], {1, 3}}, // nor in the middle
      {{}, {0, 2, 4, 6, 8, 10, 12}, {}, {39}, everything[0], {}},
      {{}, {}, {}},
      {{0}, {0}, {0}}, // as in the last layer of a classifier
      {{7}, {}, {39}},
      {{7}, {2, 3}},
  };
  for (const Kept& kept : patterns) {
    for (const at::ScalarType type : kInputTypes) {
      check(make_batch(kept, 40, 50, 97, type), at::kFloat);
    }
    check(make_batch(kept, 40, 50, 97, at::kDouble), at::kDouble);
  }
}

TEST(LinearSquareAccumulate, IsRightAtTheEdgesOfTiles) {
  at::manual_seed(0);
  for (const int64_t width : {1, 3, 31, 32, 33, 47, 48, 49, 63, 65, 255, 257}) {
    for (const int64_t tokens : {1, 2, 7, 32, 33}) {
      for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
        SCOPED_TRACE(testing::Message() << width << ", " << tokens << type);
        check(make_batch(all(3, tokens), tokens, width, 65, type), at::kFloat);
        check(make_batch(all(3, tokens), tokens, 65, width, type), at::kFloat);
      }
    }
  }
}

TEST(LinearSquareAccumulate, TakesExamplesInGroups) {
  at::manual_seed(0);
  // More than one pass holds, in an odd number of examples of unequal lengths.
  Kept kept;
  for (int64_t i = 0; i < 41; ++i) {
    kept.push_back(all(1, 1 + (i * 37) % 300)[0]);
  }
  for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
    check(make_batch(kept, 300, 200, 130, type), at::kFloat);
  }
}

TEST(LinearSquareAccumulate, NeedsNoBf16Instructions) {
  const Batch batch = make_batch(all(3, 20), 20, 50, 60, at::kBFloat16);
  at::globalContext().setUserEnabledMkldnn(false);
  check(batch, at::kFloat);
  at::globalContext().setUserEnabledMkldnn(true);
}

TEST(LinearSquareAccumulate, SpreadsTheNanOfAGradient) {
  for (const at::ScalarType type : kInputTypes) {
    at::Tensor a = at::randn({2, 9, 40}).to(type);
    at::Tensor d = at::zeros({2, 9, 20}).to(type);
    d[1][8][19] = kNan;
    at::Tensor fisher = at::zeros({20, 40});
    linear_square_accumulate_(fisher, a, d, 1);
    EXPECT_TRUE(fisher[19].isnan().all().item<bool>());
    EXPECT_EQ(fisher.isnan().sum().item<int64_t>(), 40);
    at::Tensor expected = at::zeros({20, 40});
    linear_square_accumulate_reference_(expected, a, d, 1);
    EXPECT_TRUE(same_bits(fisher, expected));
  }
}

} // namespace
} // namespace merganser::ops
