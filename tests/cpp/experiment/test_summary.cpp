// Quantities of results.json that follow from its models.

#include "merganser/experiment/summary.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace merganser {
namespace {

using Json = nlohmann::ordered_json;

Json model(const char* name, const char* kind, double accuracy, double loss) {
  return {
      {"name", name},
      {"kind", kind},
      {"average", {{"accuracy", accuracy}, {"loss", loss}}}};
}

Json results() {
  return {
      {"models",
       {model("base", "base", 0.9, 0.1),
        model("sum", "merge", 0.5, 0.7),
        model("a", "merge", 0.625, 0.6),
        model("b", "merge", 0.625, 0.5),
        model("c", "merge", 0.25, 0.5),
        model("refined", "refined", 0.875, 0.2),
        model("target", "target", 0.75, 0.3)}}};
}

TEST(Summary, TheBestIsTheFirstMergeOfEquals) {
  Json found = results();
  add_best(found);
  EXPECT_EQ(found["best"], Json({{"accuracy", "a"}, {"loss", "b"}}));
}

TEST(Summary, ShareOfTheGapIsZeroAtItsStartAndOneAtItsEnd) {
  Json found = results();
  found["gap"] = {{"from", "sum"}, {"to", "target"}};
  add_share_of_gap(found);
  const std::vector<double> expected = {1.6, 0, 0.5, 0.5, -1, 1.5, 1};
  for (size_t i = 0; i < expected.size(); ++i) {
    EXPECT_NEAR(found["models"][i]["share_of_gap"], expected[i], 1e-12);
  }
}

TEST(Summary, RetainedIsTheShareOfTheBasesAccuracyOnItsSet) {
  const auto model = [](double accuracy) {
    return Json{
        {"sets", {{"movie", {{"accuracy", accuracy}}}, {"nyt", Json()}}}};
  };
  Json found = {
      {"base_data", "movie"}, {"models", {model(0.5), model(0.25), model(1)}}};
  add_retained(found);
  EXPECT_EQ(found["models"][0]["retained"], 1);
  EXPECT_EQ(found["models"][1]["retained"], 0.5);
  EXPECT_EQ(found["models"][2]["retained"], 2);
  Json hopeless = {{"base_data", "movie"}, {"models", {model(0), model(0.25)}}};
  add_retained(hopeless);
  EXPECT_FALSE(hopeless["models"][1].contains("retained"));
}

TEST(Summary, WithoutAGapNothingHasAShare) {
  Json none = results();
  add_share_of_gap(none);
  EXPECT_EQ(none, results());
  Json empty = results();
  empty["gap"] = {{"from", "a"}, {"to", "b"}}; // of equal accuracy
  add_share_of_gap(empty);
  EXPECT_FALSE(empty["models"][0].contains("share_of_gap"));
}

} // namespace
} // namespace merganser
