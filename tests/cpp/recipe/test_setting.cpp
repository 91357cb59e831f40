#include "merganser/recipe/setting.h"

#include <gtest/gtest.h>

#include <cmath>

#include "merganser/io/yaml_value.h"
#include "support/expect_error.h"

namespace merganser::test {
namespace {

constexpr ParameterInfo kAny = {.name = "p"};
constexpr ParameterInfo kShare = {.name = "p", .min = 0, .max = 1};
constexpr ParameterInfo kPositive = {.name = "p", .min = 0, .above_min = true};
constexpr ParameterInfo kPositiveShare = {
    .name = "p",
    .min = 0,
    .max = 1,
    .above_min = true};
constexpr ParameterInfo kMeasured = {.name = "p", .may_be_auto = true};
constexpr ParameterInfo kFlag = {.name = "p", .is_flag = true};
constexpr ParameterInfo kWhole = {
    .name = "p",
    .is_whole = true,
    .min = 0,
    .max = 9007199254740992};

Setting parse_setting(
    const std::string& yaml,
    const ParameterInfo& parameter = kAny) {
  return Setting::parse(
      YamlValue::parse("p: " + yaml, "r.yaml").at("p"), parameter);
}

// The definition: n values at equal distances over the depths 0 to 1, linear
// between them.
double interpolated(const std::vector<double>& values, double depth) {
  if (values.size() == 1) {
    return values[0];
  }
  const double step = 1.0 / static_cast<double>(values.size() - 1);
  for (size_t i = 0; i + 1 < values.size(); ++i) {
    const double left = step * static_cast<double>(i);
    if (depth <= left + step) {
      const double share = (depth - left) / step;
      return values[i] + share * (values[i + 1] - values[i]);
    }
  }
  return values.back();
}

TEST(Setting, TakesNumbers) {
  for (const auto& [yaml, number] :
       {std::pair("0.5", 0.5), {"-2e3", -2000.0}, {"[7]", 7.0}}) {
    const Setting setting = parse_setting(yaml);
    EXPECT_TRUE(setting.is_constant()) << yaml;
    EXPECT_FALSE(setting.is_sweep()) << yaml;
    EXPECT_EQ(setting.outputs(), 1u) << yaml;
    for (const double depth : {0.0, 0.3, 1.0}) {
      EXPECT_EQ(setting.at("any", depth), number) << yaml;
    }
  }
  EXPECT_EQ(parse_setting("0.5").to_yaml(), "0.5");
  EXPECT_EQ(parse_setting("1", kPositiveShare).at("t", 0), 1);
}

TEST(Setting, TakesAutoWhereTheParameterMayBe) {
  const Setting setting = parse_setting("auto", kMeasured);
  EXPECT_TRUE(std::isnan(*setting.at("t", 0)));
  EXPECT_TRUE(setting.is_constant());
  EXPECT_EQ(setting.to_yaml(), "auto");
  EXPECT_EQ(parse_setting("0.5", kMeasured).at("t", 0), 0.5);
  const Setting rules =
      parse_setting("[{filter: mlp, value: auto}, {value: 2}]", kMeasured);
  EXPECT_TRUE(std::isnan(*rules.at("x.mlp", 0)));
  EXPECT_EQ(rules.at("x", 0), 2);
}

TEST(Setting, KeepsFlagsAsNumbers) {
  for (const char* yes : {"true", "yes", "1"}) {
    EXPECT_EQ(parse_setting(yes, kFlag).at("t", 0), 1) << yes;
  }
  for (const char* no : {"false", "no", "0"}) {
    EXPECT_EQ(parse_setting(no, kFlag).at("t", 0), 0) << no;
  }
}

TEST(Setting, KeepsWholeNumbersExactly) {
  EXPECT_EQ(
      parse_setting("9007199254740991", kWhole).at("t", 0), 9007199254740991.0);
  EXPECT_EQ(parse_setting("0", kWhole).at("t", 0), 0);
}

TEST(Setting, InterpolatesOverTheDepth) {
  const std::vector<std::vector<double>> lists = {
      {0.25}, {0, 1}, {1, 0}, {0, 0.5, 1}, {0.5, -2, 3, 8}};
  for (const std::vector<double>& values : lists) {
    std::string yaml = "[";
    for (const double value : values) {
      yaml += std::to_string(value) + ", ";
    }
    const Setting setting = parse_setting(yaml + "]");
    EXPECT_EQ(setting.is_constant(), values.size() == 1);
    for (int layer = 0; layer <= 12; ++layer) {
      const double depth = layer / 12.0;
      EXPECT_NEAR(*setting.at("t", depth), interpolated(values, depth), 1e-14)
          << yaml << " at depth " << depth;
    }
    EXPECT_EQ(setting.at("t", 0), values.front());
    EXPECT_EQ(setting.at("t", 1), values.back());
  }
  EXPECT_EQ(parse_setting("[0, 0.5, 1]").to_yaml(), "[0, 0.5, 1]");
}

TEST(Setting, TakesTheFirstRuleThatFits) {
  const Setting setting = parse_setting(
      "[{filter: layer.1, value: 1}, {filter: mlp, value: [2, 4]},"
      " {filter: layer, value: 3}]");
  EXPECT_EQ(setting.at("layer.1.mlp.weight", 1), 1);
  EXPECT_EQ(setting.at("layer.2.mlp.weight", 0), 2);
  EXPECT_EQ(setting.at("layer.2.mlp.weight", 0.5), 3);
  EXPECT_EQ(setting.at("layer.2.attention.weight", 0.5), 3);
  EXPECT_EQ(setting.at("embeddings", 0), std::nullopt);
  EXPECT_FALSE(setting.is_constant());
}

TEST(Setting, TakesOneRuleOrOneForAll) {
  const Setting one = parse_setting("{filter: mlp, value: 2}");
  EXPECT_EQ(one.at("mlp.weight", 0), 2);
  EXPECT_EQ(one.at("norm", 0), std::nullopt);
  EXPECT_FALSE(one.is_constant());
  EXPECT_EQ(one.to_yaml(), "[{filter: \"mlp\", value: 2}]");
  for (const char* all : {"{filter: '*', value: 2}", "[{value: 2}]"}) {
    const Setting setting = parse_setting(all);
    EXPECT_EQ(setting.at("norm", 0), 2) << all;
    EXPECT_TRUE(setting.is_constant()) << all;
    EXPECT_EQ(setting.to_yaml(), "2") << all;
  }
}

TEST(Setting, SweepsHaveAValueForEachOutput) {
  const Setting setting = parse_setting("{sweep: [0.2, 0.4, 0.8]}", kShare);
  EXPECT_TRUE(setting.is_sweep());
  EXPECT_FALSE(setting.is_constant());
  EXPECT_EQ(setting.outputs(), 3u);
  for (const double depth : {0.0, 1.0}) {
    EXPECT_EQ(setting.at("t", depth, 0), 0.2);
    EXPECT_EQ(setting.at("t", depth, 1), 0.4);
    EXPECT_EQ(setting.at("t", depth, 2), 0.8);
  }
  EXPECT_EQ(setting.to_yaml(), "{sweep: [0.2, 0.4, 0.8]}");
  EXPECT_EQ(parse_setting("{sweep: [1]}").outputs(), 1u);
}

// The printed YAML reads as the same setting.
TEST(Setting, PrintsWhatItReads) {
  for (const char* yaml :
       {"0.1",
        "[0.1, 0.7]",
        "{sweep: [0.1, 0.7]}",
        "[{filter: \"a: \\\"b\\\"\", value: 0.1}, {value: [0.1, 1]}]"}) {
    EXPECT_EQ(parse_setting(yaml).to_yaml(), yaml);
  }
}

TEST(Setting, RefusesOtherValues) {
  struct Bad {
    const char* yaml;
    ParameterInfo parameter;
    const char* column;
    const char* words;
  };
  const Bad bad[] = {
      {"much", kAny, "4", "p must be a number, not 'much'"},
      {".nan", kAny, "4", "p must be a number"},
      {".nan", kMeasured, "4", "p must be a number"},
      {"auto", kAny, "4", "p must be a number, not 'auto'"},
      {"[auto, 1]", kMeasured, "5", "p[0] must be a number, not 'auto'"},
      {".inf", kAny, "4", "p must be a number"},
      {"[]",
       kAny,
       "4",
       "p must be a list of at least one item, not an empty list"},
      {"[0, x]", kAny, "8", "p[1] must be a number, not 'x'"},
      {"[0, [1]]", kAny, "8", "p[1] must be a number, not a list"},
      {"-0.1", kShare, "4", "p must be between 0 and 1, not '-0.1'"},
      {"[0, 1.1]", kShare, "8", "p[1] must be between 0 and 1, not '1.1'"},
      {"0", kPositive, "4", "p must be greater than 0, not '0'"},
      {"-1", kPositive, "4", "p must be greater than 0, not '-1'"},
      {"0", kPositiveShare, "4", "p must be greater than 0, not '0'"},
      {"2", kPositiveShare, "4", "p must be between 0 and 1, not '2'"},
      {"2", kFlag, "4", "p must be true or false, not '2'"},
      {"[true]", kFlag, "4", "p must be true or false, not a list"},
      {"0.5", kWhole, "4", "p must be an integer, not '0.5'"},
      {"-1", kWhole, "4", "p must be between 0 and 9007199254740992"},
      {"[1, 2]", kWhole, "4", "p must be an integer, not a list"},
      {"{value: 2}", kShare, "12", "p.value must be between 0 and 1"},
      {"{filter: a}", kAny, "4", "'value' is missing in p"},
      {"{filter: [a], value: 1}", kAny, "13", "p.filter must be a string"},
      {"{filter: a, x: 1, value: 1}", kAny, "16", "'x' in p"},
      {"[{value: 1}, 2]", kAny, "17", "p[1] must be a mapping, not '2'"},
      {"{sweep: []}", kAny, "12", "p.sweep must be a list of at least one"},
      {"{sweep: 1}", kAny, "12", "p.sweep must be a list of at least one"},
      {"{sweep: [0, 2]}", kShare, "16", "p.sweep[1] must be between 0 and 1"},
      {"{sweep: [1], value: 1}", kAny, "17", "'value' in p"},
  };
  for (const Bad& value : bad) {
    SCOPED_TRACE(value.yaml);
    expect_error<InputError>(
        [&] { parse_setting(value.yaml, value.parameter); },
        {std::string("r.yaml:1:") + value.column + ": ", value.words});
  }
}

TEST(Setting, IsFoundInTheFirstLevelThatHasIt) {
  const Settings model = {{"a", parse_setting("1")}};
  const Settings recipe = {
      {"a", parse_setting("2")}, {"b", parse_setting("3")}};
  EXPECT_EQ(find_setting("a", {&model, &recipe}), &model.at("a"));
  EXPECT_EQ(find_setting("a", {&recipe, &model}), &recipe.at("a"));
  EXPECT_EQ(find_setting("b", {&model, &recipe}), &recipe.at("b"));
  EXPECT_EQ(find_setting("c", {&model, &recipe}), nullptr);
}

} // namespace
} // namespace merganser::test
