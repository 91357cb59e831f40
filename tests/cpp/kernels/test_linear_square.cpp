// linear_square_accumulate compared with its definition in float64: edges of
// tiles, slices and shares of examples; tokens without a gradient.

#include <vector>

#include "arrays.h"
#include "merganser/kernels/kernels.h"
#include "merganser/numeric/block_count.h"

namespace merganser::kernels {
namespace {

template <typename In>
class LinearSquare : public testing::Test {};
TYPED_TEST_SUITE(LinearSquare, InputTypes);

struct Shape {
  int64_t examples, tokens, in, out;
  int keep; // every keep-th token has a gradient
  int offset;
  int64_t shares;
};

template <typename In>
void compare(const Shape& s) {
  using T = Accumulator<In>;
  SCOPED_TRACE(
      testing::Message() << s.examples << " x " << s.tokens << ", " << s.in
                         << " to " << s.out << ", keep " << s.keep
                         << ", offset " << s.offset << ", " << s.shares
                         << " shares");
  const int64_t rows = s.examples * s.tokens;
  auto a = random_numbers<In>(rows * s.in, s.offset, 0);
  auto d = random_numbers<In>(rows * s.out, s.offset, 1);
  Array<double> expected(s.out * s.in);
  const auto kept = [&](int64_t i, int64_t l) {
    return i % 3 != 1 && (l + i) % s.keep == 0; // some examples have none
  };
  for (int64_t i = 0; i < s.examples; ++i) {
    Array<double> sums(s.out * s.in);
    for (int64_t l = 0; l < s.tokens; ++l) {
      const int64_t row = i * s.tokens + l;
      for (int64_t o = 0; o < s.out; ++o) {
        if (!kept(i, l)) {
          d[row * s.out + o] = In(o % 2 == 0 ? 0.0f : -0.0f);
          continue;
        }
        for (int64_t j = 0; j < s.in; ++j) {
          sums[o * s.in + j] +=
              to_double(d[row * s.out + o]) * to_double(a[row * s.in + j]);
        }
      }
      if (!kept(i, l) && s.in > 0) {
        a[row * s.in] = In(NAN);
      }
    }
    for (int64_t k = 0; k < expected.size(); ++k) {
      expected[k] += sums[k] * sums[k] * 0.25;
    }
  }
  in_both_orders([&] {
    Array<int> lists(s.examples * (s.tokens + 1));
    launch_example_tokens(
        d.data(), lists.data(), s.examples, s.tokens, s.out, nullptr);
    for (int64_t i = 0; i < s.examples; ++i) {
      const int* list = lists.data() + i * (s.tokens + 1);
      int count = 0;
      for (int64_t l = 0; l < s.tokens; ++l) {
        if (kept(i, l)) {
          ASSERT_EQ(list[1 + count++], l);
        }
      }
      ASSERT_EQ(list[0], count);
    }
    Array<T> partial(s.shares > 1 ? s.shares * s.in * s.out : 0);
    Array<T> fisher(s.in * s.out);
    launch_linear_square_accumulate(
        a.data(),
        d.data(),
        lists.data(),
        partial.data(),
        fisher.data(),
        s.shares,
        s.examples,
        s.tokens,
        s.in,
        s.out,
        T(0.25),
        nullptr);
    expect_near(fisher, expected, sizeof(T) == 4 ? 3e-5 : 1e-12);
  });
}

TYPED_TEST(LinearSquare, EqualsItsDefinition) {
  compare<TypeParam>({0, 4, 8, 8, 1, 0, 1});
  compare<TypeParam>({1, 1, 1, 1, 1, 1, 1});
  compare<TypeParam>({3, 70, 16, 24, 1, 0, 1}); // several slices
  compare<TypeParam>({5, 37, 136, 8, 2, 0, 2}); // two tiles, idle tokens
  compare<TypeParam>({4, 33, 9, 131, 3, 1, 1}); // nothing aligned
  compare<TypeParam>({3, 16, 17, 16, 1, 0, 3}); // one operand aligned
}

// Examples with one token with a gradient, and more tokens than a ballot has.
TYPED_TEST(LinearSquare, SingleTokens) {
  compare<TypeParam>({7, 40, 24, 16, 40, 0, 1});
}

TEST(BlockCount, CoversTheItemsUpToTheLimit) {
  EXPECT_EQ(block_count(1025, 256), 5);
  EXPECT_EQ(block_count(int64_t{65535} * 256 + 1, 256), 65535);
  EXPECT_EQ(block_count(int64_t{1} << 32, 1), 65535);
}

TEST(LinearSquareShares, FillADevice) {
  EXPECT_EQ(linear_square_shares<__half>(0, 768, 768), 1);
  EXPECT_EQ(linear_square_shares<__half>(8, 768, 768), 8); // 36 tiles
  EXPECT_EQ(linear_square_shares<__half>(64, 768, 768), 14);
  EXPECT_EQ(linear_square_shares<__half>(64, 768, 50265), 1);
}

} // namespace
} // namespace merganser::kernels
