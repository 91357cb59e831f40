#include "merganser/search/search_space.h"

#include <gtest/gtest.h>

#include "merganser/recipe/recipe_text.h"
#include "support/expect_error.h"

namespace merganser::test {
namespace {

Recipe recipe(const std::string& method = "ties") {
  return Recipe::parse(
      "merge_method: " + method + R"(
base_model: base
models:
  - {model: a, parameters: {weight: 0.7}}
  - {model: b}
)",
      "/recipes",
      "r.yaml");
}

SearchSpace parse(const std::string& argument) {
  return parse_search_space(recipe(), {argument});
}

TEST(SearchSpace, RangesAreLinearOrLogarithmic) {
  const SearchSpace space =
      parse_search_space(recipe(), {"lambda=0..4", "weight=0.01..100:log"});
  ASSERT_EQ(space.size(), 2u);
  EXPECT_EQ(space[0].at(0), "0");
  EXPECT_EQ(space[0].at(0.25), "1");
  EXPECT_EQ(space[0].at(0.123456), "0.4938"); // four digits
  EXPECT_EQ(space[1].at(0), "0.01");
  EXPECT_EQ(space[1].at(0.5), "1");
  EXPECT_EQ(space[1].at(0.75), "10");
  const SearchedParameter narrow = parse("density=0.12345..0.123454").front();
  EXPECT_EQ(narrow.at(0), "0.123454"); // rounding stays inside
}

TEST(SearchSpace, ListsHaveEqualShares) {
  const SearchedParameter lists = parse("density=0.30,0.5,0.7").front();
  EXPECT_EQ(lists.at(0), "0.3");
  EXPECT_EQ(lists.at(0.34), "0.5");
  EXPECT_EQ(lists.at(0.999), "0.7");
  EXPECT_EQ(parse("normalize=true,false").front().at(0.6), "0");
  const SearchedParameter seeds =
      parse_search_space(recipe("dare_linear"), {"seed=2..4"}).front();
  EXPECT_EQ(seeds.at(0), "2");
  EXPECT_EQ(seeds.at(0.34), "3");
  EXPECT_EQ(seeds.at(0.99), "4");
}

TEST(SearchSpace, ValuesGoToTheModelsThatTheKeyNames) {
  const Recipe given = recipe();
  const auto weights = [&](const std::string& argument,
                           const std::vector<std::string>& values) {
    const SearchSpace space = parse_search_space(given, {argument});
    EXPECT_EQ(space.size(), values.size());
    std::vector<std::string> found;
    const Recipe searched = with_values(given, space, values);
    for (const RecipeModel& model : searched.models) {
      const Setting* weight =
          find_setting("weight", {&model.parameters, &searched.parameters});
      found.push_back(weight == nullptr ? "" : weight->to_yaml());
    }
    return found;
  };
  using Weights = std::vector<std::string>;
  EXPECT_EQ(weights("weight=0..1", {"0.5"}), (Weights{"0.5", "0.5"}));
  EXPECT_EQ(weights("models.1.weight=0..1", {"0.5"}), (Weights{"0.7", "0.5"}));
  EXPECT_EQ(
      weights("models.*.weight=0..1", {"0.1", "0.2"}), (Weights{"0.1", "0.2"}));
  EXPECT_EQ(parse("models.*.weight=0..1")[1].key, "models.1.weight");
  const SearchSpace space = parse("lambda=0.5,2");
  EXPECT_EQ(
      with_values(given, space, {"2"}).parameters.at("lambda").to_yaml(), "2");
}

TEST(SearchSpace, RefusesWhatARecipeWould) {
  const auto refuse = [](const std::string& argument, const char* part) {
    expect_error<InputError>([&] { parse(argument); }, {part});
  };
  refuse("weight", "expected KEY=LOW..HIGH or KEY=VALUE,VALUE, got 'weight'");
  refuse("delta=0..1", "method ties has no parameter delta; available: weight");
  refuse("=0..1", "method ties has no parameter ''");
  refuse("models.2.weight=0..1", "expected a model from 0 to 1, or *, got '2'");
  refuse("models.x.weight=0..1", "expected a model from 0 to 1, or *, got 'x'");
  refuse("models.weight=0..1", "got 'weight'");
  refuse("models.0.lambda=0..1", "lambda is a parameter of the merge");
  refuse("weight=1..0.5", "from a lower to a higher value, got 1..0.5");
  refuse("weight=1..1", "from a lower to a higher value");
  refuse("weight=0..1:log", "above 0 with :log, got 0");
  refuse("weight=0..x", "must be a number");
  refuse("weight=", "expected a value, got none");
  refuse("weight=..1", "expected a value, got none");
  refuse("density=0.5..1.5", "must be between 0 and 1");
  refuse("density=0.5,0.50", "0.5 is given twice");
  refuse("normalize=0..1", "expected true, false or both");
  expect_error<InputError>(
      [] {
        parse_search_space(recipe(), {"models.1.weight=0..1", "weight=0..2"});
      },
      {"--over weight: sets a value that models.1.weight also sets"});
}

} // namespace
} // namespace merganser::test
