#include "merganser/recipe/setting.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "merganser/base/json_text.h"
#include "merganser/base/problems.h"
#include "merganser/io/yaml_value.h"

namespace merganser {
namespace {

double parse_one(const YamlValue& value, const ParameterInfo& parameter) {
  if (parameter.is_flag) {
    return value.flag() ? 1 : 0;
  }
  if (parameter.is_whole) {
    return static_cast<double>(value.integer(
        static_cast<int64_t>(parameter.min),
        static_cast<int64_t>(parameter.max)));
  }
  const bool bounded = parameter.max != std::numeric_limits<double>::max();
  if (bounded || !parameter.above_min) {
    value.number(parameter.min, parameter.max);
  }
  // All parameters with an exclusive minimum have the minimum 0.
  return parameter.above_min ? value.positive() : value.number();
}

std::vector<double> parse_items(
    const YamlValue& list,
    const ParameterInfo& parameter) {
  std::vector<double> values;
  Problems problems;
  for (const YamlValue& item : list.items()) {
    problems.collect([&] { values.push_back(parse_one(item, parameter)); });
  }
  problems.throw_if_any();
  return values;
}

std::vector<double> parse_values(
    const YamlValue& value,
    const ParameterInfo& parameter) {
  const bool is_list = value.is_list();
  if (parameter.may_be_auto && value.is_text(kAutoText)) {
    return {kAuto};
  }
  if (parameter.is_flag || parameter.is_whole || !is_list) {
    return {parse_one(value, parameter)};
  }
  return parse_items(value, parameter);
}

} // namespace

Setting Setting::parse(const YamlValue& value, const ParameterInfo& parameter) {
  Setting setting;
  const auto add_rule = [&](const YamlValue& rule) {
    rule.expect_keys({"filter", "value"});
    const auto filter = rule.given("filter");
    setting.rules_.push_back(
        {filter && filter->text() != "*" ? filter->text() : "",
         parse_values(rule.at("value"), parameter)});
  };
  if (value.is_mapping() && value.find("sweep")) {
    value.expect_keys({"sweep"});
    setting.is_sweep_ = true;
    setting.rules_.push_back({"", parse_items(value.at("sweep"), parameter)});
  } else if (value.is_mapping()) {
    add_rule(value);
  } else if (value.is_list() && value.items().front().is_mapping()) {
    Problems problems;
    for (const YamlValue& rule : value.items()) {
      problems.collect([&] { add_rule(rule); });
    }
    problems.throw_if_any();
  } else {
    setting.rules_.push_back({"", parse_values(value, parameter)});
  }
  return setting;
}

bool Setting::has_auto() const {
  return std::ranges::any_of(rules_, [](const Rule& rule) {
    return std::isnan(rule.values.front()); // alone: lists have numbers
  });
}

std::string Setting::to_yaml() const {
  const auto print = [](const std::vector<double>& values) -> std::string {
    if (values.size() > 1) {
      return fmt::format("[{}]", fmt::join(values, ", "));
    }
    return std::isnan(values[0]) ? kAutoText : fmt::format("{}", values[0]);
  };
  const Rule& first = rules_.front();
  if (is_sweep_) {
    return fmt::format("{{sweep: [{}]}}", fmt::join(first.values, ", "));
  }
  if (rules_.size() == 1 && first.filter.empty()) {
    return print(first.values);
  }
  std::vector<std::string> rules;
  for (const Rule& rule : rules_) {
    rules.push_back(
        rule.filter.empty() ? fmt::format("{{value: {}}}", print(rule.values))
                            : fmt::format(
                                  "{{filter: {}, value: {}}}",
                                  json_text(nlohmann::json(rule.filter)),
                                  print(rule.values)));
  }
  return fmt::format("[{}]", fmt::join(rules, ", "));
}

std::optional<double> Setting::at(
    std::string_view tensor,
    double depth,
    size_t sweep) const {
  if (is_sweep_) {
    return rules_.front().values.at(sweep);
  }
  const auto rule = std::ranges::find_if(rules_, [&](const Rule& r) {
    return tensor.find(r.filter) != std::string_view::npos;
  });
  if (rule == rules_.end()) {
    return std::nullopt;
  }
  const std::vector<double>& values = rule->values;
  const double place = depth * static_cast<double>(values.size() - 1);
  const auto left = static_cast<size_t>(place);
  const size_t right = std::min(values.size() - 1, left + 1);
  const double share = place - static_cast<double>(left);
  return (1 - share) * values[left] + share * values[right];
}

Setting Setting::output(size_t sweep) const {
  Setting one = *this;
  if (is_sweep_) {
    one.is_sweep_ = false;
    one.rules_ = {{"", {rules_.front().values.at(sweep)}}};
  }
  return one;
}

const Setting* find_setting(
    std::string_view name,
    std::initializer_list<const Settings*> levels) {
  for (const Settings* level : levels) {
    const auto found = level->find(name);
    if (found != level->end()) {
      return &found->second;
    }
  }
  return nullptr;
}

} // namespace merganser
