// dropout and sample_labels have the draws of their formulas.

#include "arrays.h"
#include "merganser/kernels/kernels.h"
#include "merganser/numeric/dropout_formula.h"
#include "merganser/numeric/label_formula.h"

namespace merganser::kernels {
namespace {

template <typename In>
class Dropout : public testing::Test {};
TYPED_TEST_SUITE(Dropout, InputTypes);

TYPED_TEST(Dropout, EqualsItsFormula) {
  using T = Accumulator<TypeParam>;
  const auto scalars = make_dropout_scalars<T>(0.3);
  for (const int64_t n : {0, 1, 15, 127, 128, 129, 5000}) {
    const auto input = hard_numbers<TypeParam>(n, 1, 0);
    Array<TypeParam> output(n), expected(n);
    for (int64_t i = 0; i < n; ++i) {
      const int row = static_cast<int>(i / kDropoutLanes % kDropoutRows);
      const PhiloxBlock block = dropout_block(
          7, 9, i / kDropoutTile, static_cast<int>(i % kDropoutLanes));
      expected[i] = static_cast<TypeParam>(scalars.apply(
          static_cast<T>(to_double(input[i])), block.word[row / 2], row));
    }
    launch_dropout<T>(input.data(), output.data(), n, 0.3, 7, 9, nullptr);
    expect_same_bits(output, expected);
  }
}

template <typename T>
void compare_labels(int64_t rows, int64_t columns) {
  auto p = random_numbers<T>(rows * columns, 0, 0, 0.1, 1);
  Array<int64_t> indices(rows), labels(rows), expected(rows);
  for (int64_t i = 0; i < rows; ++i) {
    T total = 0;
    for (int64_t k = 0; k < columns; ++k) {
      total += p[i * columns + k];
    }
    for (int64_t k = 0; k < columns; ++k) {
      p[i * columns + k] /=
          i % 10 == 9 ? 1 : total; // some are not distributions
    }
    indices[i] = 3 * i;
    expected[i] = draw_label(p.data() + i * columns, columns, 5, 1, 3 * i);
  }
  launch_sample_labels(
      p.data(), indices.data(), labels.data(), rows, columns, 5, 1, nullptr);
  EXPECT_TRUE(std::equal(labels.begin(), labels.end(), expected.begin()));
}

TEST(SampleLabels, EqualTheirFormula) {
  for (const int64_t rows : {0, 1, 127, 300}) {
    for (const int64_t columns : {2, 5}) {
      compare_labels<float>(rows, columns);
      compare_labels<double>(rows, columns);
    }
  }
}

} // namespace
} // namespace merganser::kernels
