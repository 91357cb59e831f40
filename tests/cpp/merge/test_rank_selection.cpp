#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "merganser/merge/rank_selection.h"

namespace merganser::test {
namespace {

template <typename T>
T select(const std::vector<T>& values, uint64_t rank, size_t part) {
  RankSelection<T> selection(rank);
  for (int pass = 0; pass < RankSelection<T>::kPasses; ++pass) {
    auto histogram = RankSelection<T>::empty_histogram();
    for (size_t begin = 0; begin < values.size(); begin += part) {
      selection.count(
          std::span(values).subspan(
              begin, std::min(part, values.size() - begin)),
          histogram);
    }
    selection.advance(histogram);
  }
  return selection.value();
}

template <typename T>
void compare_with_sorting() {
  std::mt19937 random(1);
  for (const size_t n : {1, 2, 3, 255, 1000}) {
    std::vector<T> values(n);
    for (T& x : values) {
      // Many magnitudes, with zeros, equal numbers and both signs.
      const int kind = static_cast<int>(random() % 8);
      x = kind == 0 ? T(0)
          : kind == 1
          ? T(0.5)
          : std::ldexp(
                T(random()) / 1000, static_cast<int>(random() % 60) - 40);
      x = random() % 2 ? x : -x;
    }
    std::vector<T> sorted;
    for (const T x : values) {
      sorted.push_back(std::abs(x));
    }
    std::ranges::sort(sorted);
    for (const size_t rank : {size_t{0}, n / 3, n / 2, n - 1}) {
      EXPECT_EQ(select(values, rank, n), sorted[rank]);
      EXPECT_EQ(select(values, rank, 7), sorted[rank]);
    }
  }
}

TEST(RankSelection, EqualsSorting) {
  compare_with_sorting<float>();
  compare_with_sorting<double>();
}

} // namespace
} // namespace merganser::test
