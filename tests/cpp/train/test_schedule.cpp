#include <gtest/gtest.h>

#include <cmath>
#include <numbers>

#include "merganser/base/error.h"
#include "merganser/train/schedule.h"

namespace merganser {
namespace {

// Compared with transformers over whole runs in
// tests/python/train/test_trainer.py.
TEST(Schedule, WarmsUpFromZero) {
  for (Schedule schedule :
       {Schedule::kConstant, Schedule::kLinear, Schedule::kCosine}) {
    EXPECT_DOUBLE_EQ(schedule_factor(schedule, 0, 4, 20), 0);
    EXPECT_DOUBLE_EQ(schedule_factor(schedule, 1, 4, 20), 0.25);
    EXPECT_DOUBLE_EQ(schedule_factor(schedule, 4, 4, 20), 1);
  }
}

TEST(Schedule, WithoutWarmUpTheFirstStepIsFull) {
  for (Schedule schedule :
       {Schedule::kConstant, Schedule::kLinear, Schedule::kCosine}) {
    EXPECT_DOUBLE_EQ(schedule_factor(schedule, 0, 0, 5), 1);
  }
}

TEST(Schedule, DecaysAsItsNameSays) {
  EXPECT_DOUBLE_EQ(schedule_factor(Schedule::kConstant, 19, 4, 20), 1);
  EXPECT_DOUBLE_EQ(schedule_factor(Schedule::kLinear, 16, 4, 20), 0.25);
  EXPECT_DOUBLE_EQ(
      schedule_factor(Schedule::kCosine, 8, 4, 20),
      0.5 * (1 + std::cos(std::numbers::pi / 4)));
}

TEST(Schedule, IsNeverNegative) {
  EXPECT_DOUBLE_EQ(schedule_factor(Schedule::kLinear, 30, 4, 20), 0);
  EXPECT_DOUBLE_EQ(schedule_factor(Schedule::kLinear, 3, 3, 3), 1);
}

TEST(Schedule, NamesGoBothWays) {
  for (const char* name : {"constant", "linear", "cosine"}) {
    EXPECT_EQ(schedule_name(parse_schedule(name)), name);
  }
  EXPECT_THROW(parse_schedule("polynomial"), InputError);
}

} // namespace
} // namespace merganser
