#include "merganser/train/step_plan.h"

#include <gtest/gtest.h>

#include <set>

namespace merganser {
namespace {

Dataset make_data(int64_t size) {
  Dataset data;
  for (int64_t i = 0; i < size; i++) {
    data.ids.emplace_back(2 + i % 5);
    data.labels.push_back(i % 2);
  }
  return data;
}

TrainOptions make_options(double epochs, int64_t accumulate) {
  TrainOptions options;
  options.epochs = epochs;
  options.batch_size = 4;
  options.accumulate = accumulate;
  return options;
}

int64_t count(std::span<const std::vector<int64_t>> batches) {
  int64_t examples = 0;
  for (const auto& batch : batches) {
    examples += static_cast<int64_t>(batch.size());
  }
  return examples;
}

TEST(StepPlan, CountsAsTransformersDoes) {
  const Dataset data = make_data(22); // 6 batches
  EXPECT_EQ(StepPlan(data, make_options(1, 1)).steps(), 6);
  EXPECT_EQ(StepPlan(data, make_options(2, 4)).steps(), 4);
  EXPECT_EQ(StepPlan(data, make_options(0.5, 1)).steps(), 3);
  EXPECT_EQ(StepPlan(data, make_options(1.1, 1)).steps(), 7);
  TrainOptions options = make_options(1, 1);
  options.max_steps = 40;
  options.warmup = 0.06;
  EXPECT_EQ(StepPlan(data, options).steps(), 40);
  EXPECT_EQ(StepPlan(data, options).warmup_steps(), 3);
  options.warmup = 5;
  EXPECT_EQ(StepPlan(data, options).warmup_steps(), 5);
}

TEST(StepPlan, EveryEpochSeesEveryExampleOnce) {
  const Dataset data = make_data(22);
  for (int64_t accumulate : {1, 4}) {
    StepPlan plan(data, make_options(2, accumulate));
    for (int64_t epoch = 0; epoch < plan.epochs(); epoch++) {
      std::multiset<int64_t> seen;
      for (int64_t step = epoch * plan.steps_per_epoch();
           step < plan.epoch_end(epoch);
           step++) {
        EXPECT_LE(plan.batches(step).size(), static_cast<size_t>(accumulate));
        for (const auto& batch : plan.batches(step)) {
          seen.insert(batch.begin(), batch.end());
        }
      }
      EXPECT_EQ(seen.size(), 22u);
      EXPECT_EQ(std::set(seen.begin(), seen.end()).size(), 22u);
    }
  }
}

TEST(StepPlan, CountsTheExamplesOfAnEpochThatIsNotWhole) {
  const Dataset data = make_data(22);
  StepPlan plan(data, make_options(1.5, 1));
  int64_t examples = 0;
  for (int64_t step = 0; step < plan.steps(); step++) {
    examples += count(plan.batches(step));
  }
  EXPECT_EQ(plan.examples(), examples);
  EXPECT_EQ(plan.epochs(), 2);
  EXPECT_EQ(plan.epoch_end(1), 9);
  EXPECT_EQ(plan.fisher_window_begin(), 3);
}

TEST(StepPlan, AStepDoesNotDependOnThoseBefore) {
  const Dataset data = make_data(22);
  StepPlan through(data, make_options(3, 2));
  for (int64_t step = 0; step < through.steps(); step++) {
    StepPlan fresh(data, make_options(3, 2));
    const auto expected = through.batches(step);
    const auto batches = fresh.batches(step);
    EXPECT_TRUE(std::equal(
        batches.begin(), batches.end(), expected.begin(), expected.end()));
  }
}

} // namespace
} // namespace merganser
