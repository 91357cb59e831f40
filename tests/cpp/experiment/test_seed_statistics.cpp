// Means and standard errors over seeds of values in one shape.

#include "merganser/experiment/seed_statistics.h"

#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

namespace merganser {
namespace {

using Json = nlohmann::ordered_json;

TEST(SeedStatistics, CombineNumbersAtEveryPlace) {
  const std::vector<Json> values = {
      {{"name", "a"}, {"sets", {{{"loss", 1.0}}, {{"loss", 5.0}}}}},
      {{"name", "a"}, {"sets", {{{"loss", 2.0}}, {{"loss", 5.0}}}}},
      {{"name", "a"}, {"sets", {{{"loss", 6.0}}, {{"loss", 5.0}}}}}};
  const Json mean = mean_over_seeds(values);
  EXPECT_EQ(mean["name"], "a");
  EXPECT_EQ(mean["sets"][0]["loss"], 3.0);
  EXPECT_EQ(mean["sets"][1]["loss"], 5.0);
  const Json error = standard_error_over_seeds(values);
  // Variance (4 + 1 + 9) / 2 of one value, of the mean a third of it.
  EXPECT_NEAR(error["sets"][0]["loss"], std::sqrt(7.0 / 3), 1e-15);
  EXPECT_EQ(error["sets"][1]["loss"], 0.0);
}

TEST(SeedStatistics, EqualCountsStayWhole) {
  EXPECT_EQ(mean_over_seeds({Json(40), Json(40)}).dump(), "40");
  EXPECT_EQ(mean_over_seeds({Json(40), Json(41)}).dump(), "40.5");
}

TEST(SeedStatistics, KeepKeysThatAllHaveAndTheFirstOfOtherShapes) {
  const Json mean = mean_over_seeds(
      {{{"both", 1.0}, {"first", 1.0}, {"steps", {1.0, 2.0}}, {"mixed", 1.0}},
       {{"both", 3.0}, {"other", 1.0}, {"steps", {3.0}}, {"mixed", nullptr}}});
  EXPECT_EQ(mean, Json({{"both", 2.0}, {"steps", {1.0, 2.0}}, {"mixed", 1.0}}));
}

} // namespace
} // namespace merganser
