#include "merganser/text/batching.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>

#include <gtest/gtest.h>

#include "merganser/base/error.h"
#include "merganser/numeric/philox.h"
#include "support/expect_error.h"

namespace merganser {
namespace {

using Batches = std::vector<std::vector<int64_t>>;

// Example i has 1 to 60 ids.
Dataset make_data(int64_t size) {
  Dataset data;
  for (int64_t i = 0; i < size; ++i) {
    data.ids.emplace_back(1 + philox_u64(1, 2, i) % 60, int32_t(i + 10));
    data.labels.push_back(i % 3);
  }
  return data;
}

std::vector<int64_t> joined(const Batches& batches) {
  std::vector<int64_t> all;
  for (const auto& batch : batches) {
    all.insert(all.end(), batch.begin(), batch.end());
  }
  return all;
}

std::vector<int64_t> ascending(std::vector<int64_t> positions) {
  std::sort(positions.begin(), positions.end());
  return positions;
}

std::vector<int64_t> first_positions(int64_t count) {
  std::vector<int64_t> positions(count);
  std::iota(positions.begin(), positions.end(), 0);
  return positions;
}

// The fraction of ids that are padding.
double padding(const Dataset& data, const Batches& batches) {
  double used = 0;
  double all = 0;
  for (const auto& indices : batches) {
    const Batch batch = make_batch(data, indices, 0);
    all += double(batch.size) * batch.length;
    used = std::accumulate(batch.lengths.begin(), batch.lengths.end(), used);
  }
  return 1 - used / all;
}

class TrainingBatches : public testing::TestWithParam<int64_t> {};

TEST_P(TrainingBatches, HoldEveryExampleOnce) {
  const Dataset data = make_data(GetParam());
  const Batches batches = training_batches(data, 16, 3, 0);
  EXPECT_EQ(ascending(joined(batches)), first_positions(data.size()));
  const int64_t small =
      std::count_if(batches.begin(), batches.end(), [](const auto& batch) {
        return batch.size() != 16;
      });
  EXPECT_EQ(small, data.size() % 16 == 0 ? 0 : 1);
}

INSTANTIATE_TEST_SUITE_P(
    Sizes,
    TrainingBatches,
    testing::Values(0, 1, 15, 16, 17, 799, 800, 801, 5000));

TEST(TrainingBatches, DependOnSeedAndEpochAlone) {
  const Dataset data = make_data(1000);
  const Batches batches = training_batches(data, 16, 3, 0);
  EXPECT_EQ(batches, training_batches(data, 16, 3, 0));
  EXPECT_NE(batches, training_batches(data, 16, 3, 1));
  EXPECT_NE(batches, training_batches(data, 16, 4, 0));
}

// A seed fixes the order on every machine. Computed from the definition in
// Python.
TEST(TrainingBatches, KeepTheirOrderBetweenMachines) {
  Dataset data = make_data(7);
  for (auto& ids : data.ids) {
    ids = {1, 2};
  }
  EXPECT_EQ(
      training_batches(data, 2, 5, 1), (Batches{{4}, {3, 6}, {2, 5}, {0, 1}}));
}

TEST(TrainingBatches, PadLittleAndMixLengths) {
  const Dataset data = make_data(20000);
  const Batches batches = training_batches(data, 16, 3, 0);
  EXPECT_LT(padding(data, batches), 0.05);
  // Padding of shuffled examples without windows.
  Batches shuffled;
  const std::vector<int64_t> order = joined(batches);
  for (int64_t i = 0; i < data.size(); i += 16) {
    shuffled.emplace_back();
    for (int64_t k = 0; k < 16; ++k) {
      shuffled.back().push_back((i / 16 + k * 1250) % data.size());
    }
  }
  EXPECT_GT(padding(data, shuffled), 0.4);
  // Adjacent batches differ in length.
  double difference = 0;
  for (size_t i = 1; i < batches.size(); ++i) {
    difference += std::abs(
        double(data.ids[batches[i].front()].size()) -
        double(data.ids[batches[i - 1].front()].size()));
  }
  EXPECT_GT(difference / batches.size(), 10); // of 60; a third for random order
}

TEST(TrainingBatches, PutExamplesAnywhere) {
  // The position of example 0 in the epoch is uniform over many seeds: its mean
  // is within five standard errors.
  const Dataset data = make_data(100);
  const int seeds = 2000;
  double mean = 0;
  for (int seed = 0; seed < seeds; ++seed) {
    const std::vector<int64_t> order =
        joined(training_batches(data, 4, seed, 0));
    mean += double(std::find(order.begin(), order.end(), 0) - order.begin());
  }
  EXPECT_NEAR(mean / seeds, 49.5, 5 * 28.9 / std::sqrt(seeds));
}

TEST(SortedBatches, GoFromLongToShort) {
  const Dataset data = make_data(333);
  const Batches batches = sorted_batches(data, 32);
  EXPECT_EQ(batches.size(), 11u);
  const std::vector<int64_t> order = joined(batches);
  EXPECT_EQ(ascending(order), first_positions(333));
  for (size_t i = 1; i < order.size(); ++i) {
    const size_t before = data.ids[order[i - 1]].size();
    const size_t after = data.ids[order[i]].size();
    EXPECT_TRUE(before > after || (before == after && order[i - 1] < order[i]));
  }
}

TEST(SortedBatches, OfASubset) {
  const Dataset data = make_data(100);
  EXPECT_EQ(
      ascending(joined(sorted_batches(data, 8, {5, 99, 7}))),
      (std::vector<int64_t>{5, 7, 99}));
  EXPECT_TRUE(sorted_batches(data, 8, {}).empty());
}

TEST(Batches, RefuseASizeBelowOne) {
  const Dataset data = make_data(3);
  test::expect_error<InputError>(
      [&] { sorted_batches(data, 0); }, {"batch size", "0"});
  test::expect_error<InputError>(
      [&] { training_batches(data, -2, 1, 0); }, {"batch size", "-2"});
}

TEST(MakeBatch, PadsAfterTheEnd) {
  Dataset data;
  data.ids = {{5, 6}, {7}, {8, 9, 10}};
  data.labels = {2, 0, 1};
  const Batch batch = make_batch(data, {2, 1}, 99);
  EXPECT_EQ(batch.size, 2);
  EXPECT_EQ(batch.length, 3);
  EXPECT_EQ(batch.input_ids, (std::vector<int64_t>{8, 9, 10, 7, 99, 99}));
  EXPECT_EQ(batch.lengths, (std::vector<int64_t>{3, 1}));
  EXPECT_EQ(batch.labels, (std::vector<int64_t>{1, 0}));
  EXPECT_EQ(batch.indices, (std::vector<int64_t>{2, 1}));
}

TEST(MakeBatch, OfNoExamples) {
  const Batch batch = make_batch(make_data(2), {}, 0);
  EXPECT_EQ(batch.size, 0);
  EXPECT_EQ(batch.length, 0);
  EXPECT_TRUE(batch.input_ids.empty());
}

TEST(DrawSubset, IsDistinctAscendingAndKeyed) {
  const std::vector<int64_t> drawn = draw_subset(1000, 300, 9);
  EXPECT_EQ(drawn, draw_subset(1000, 300, 9));
  EXPECT_NE(drawn, draw_subset(1000, 300, 10));
  EXPECT_EQ(drawn, ascending(drawn));
  const std::set<int64_t> distinct(drawn.begin(), drawn.end());
  EXPECT_EQ(distinct.size(), 300u);
  EXPECT_GE(*distinct.begin(), 0);
  EXPECT_LT(*distinct.rbegin(), 1000);
}

TEST(DrawSubset, HoldsSmallerOnesOfTheSameSeed) {
  const std::vector<int64_t> small = draw_subset(1000, 100, 9);
  const std::vector<int64_t> large = draw_subset(1000, 300, 9);
  EXPECT_TRUE(
      std::includes(large.begin(), large.end(), small.begin(), small.end()));
}

TEST(DrawSubset, OfEverything) {
  for (const int64_t count : {-1, 10, 11}) {
    EXPECT_EQ(draw_subset(10, count, 9), first_positions(10));
  }
  EXPECT_TRUE(draw_subset(10, 0, 9).empty());
  EXPECT_TRUE(draw_subset(0, 5, 9).empty());
}

} // namespace
} // namespace merganser
