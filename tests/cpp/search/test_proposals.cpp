#include "merganser/search/proposals.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <set>

namespace merganser::test {
namespace {

SearchSpace ranges(size_t dimensions) {
  SearchedParameter searched;
  searched.high = 1;
  return SearchSpace(dimensions, searched);
}

SearchedParameter list(size_t values) {
  SearchedParameter searched;
  for (size_t i = 0; i < values; ++i) {
    searched.values.push_back(std::to_string(i));
  }
  return searched;
}

// A bowl whose minimum is at (0.3, 0.8, 0.3, ...).
double bowl(const SearchPoint& point) {
  double sum = 0;
  for (size_t i = 0; i < point.size(); ++i) {
    const double d = point[i] - (i % 2 == 0 ? 0.3 : 0.8);
    sum += d * d;
  }
  return sum;
}

TEST(Proposals, ListsHaveEachCombinationOnce) {
  for (const uint64_t seed : {0, 1, 2}) {
    Proposals proposals({list(3), list(1), list(4)}, seed);
    std::set<SearchPoint> seen;
    while (const auto point = proposals.next()) {
      EXPECT_TRUE(seen.insert(*point).second);
      proposals.tell(std::nullopt);
    }
    EXPECT_EQ(seen.size(), 12u);
  }
}

TEST(Proposals, StayInTheCubeAndFindAMinimum) {
  for (const size_t dimensions : {1, 2, 4}) {
    for (const uint64_t seed : {0, 1, 2}) {
      Proposals proposals(ranges(dimensions), seed);
      double best = 1e9;
      for (int trial = 0; trial < 200; ++trial) {
        const SearchPoint point = *proposals.next();
        EXPECT_TRUE(std::ranges::all_of(
            point, [](double x) { return x >= 0 && x < 1; }));
        best = std::min(best, bowl(point));
        proposals.tell(SearchScore(bowl(point), 0));
      }
      EXPECT_LT(best, 1e-3 * static_cast<double>(dimensions));
    }
  }
}

TEST(Proposals, TheFirstPointsCoverTheCube) {
  Proposals proposals(ranges(2), 0);
  std::set<std::pair<int, int>> cells;
  for (int trial = 0; trial < 64; ++trial) {
    const SearchPoint point = *proposals.next();
    cells.emplace(
        static_cast<int>(4 * point[0]), static_cast<int>(4 * point[1]));
    proposals.tell(std::nullopt); // refused: there is nothing to step from
  }
  EXPECT_EQ(cells.size(), 16u);
}

TEST(Proposals, DependOnTheSeedAndTheScoresAlone) {
  const auto run = [](uint64_t seed, double slope) {
    Proposals proposals(ranges(2), seed);
    std::vector<SearchPoint> points;
    for (int trial = 0; trial < 20; ++trial) {
      points.push_back(*proposals.next());
      proposals.tell(SearchScore(slope * points.back()[0], 0));
    }
    return points;
  };
  EXPECT_EQ(run(1, 1), run(1, 1));
  EXPECT_NE(run(1, 1), run(2, 1));
  EXPECT_NE(run(1, 1), run(1, -1));
}

} // namespace
} // namespace merganser::test
