#include "merganser/search/search_space.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <cmath>

#include "merganser/base/error.h"
#include "merganser/io/yaml_value.h"

namespace merganser {
namespace {

constexpr std::string_view kModels = "models.";
constexpr std::string_view kEach = "*";
constexpr std::string_view kTo = "..";
constexpr std::string_view kLog = ":log";

[[noreturn]] void fail(const std::string& key, std::string_view message) {
  throw InputError(fmt::format("--over {}: {}", key, message));
}

Setting parse_setting(
    const std::string& key,
    const ParameterInfo& parameter,
    const std::string& text) {
  if (text.empty()) {
    fail(key, "expected a value, got none");
  }
  const std::string name(parameter.name);
  const YamlValue empty = YamlValue::parse("{}", "--over " + key);
  Setting setting =
      Setting::parse(empty.with(name + "=" + text).at(name), parameter);
  if (!setting.is_constant()) {
    fail(key, fmt::format("expected one value, got {}", text));
  }
  return setting;
}

const ParameterInfo& find_parameter(
    const std::string& key,
    const MethodInfo& method,
    std::string_view name) {
  if (const ParameterInfo* found = method.find_parameter(name)) {
    return *found;
  }
  std::vector<std::string_view> names;
  for (const ParameterInfo& parameter : method.parameters) {
    names.push_back(parameter.name);
  }
  fail(
      key,
      fmt::format(
          "method {} has no parameter {}; available: {}",
          method.name,
          name.empty() ? "''" : name,
          names.empty() ? "none" : fmt::format("{}", fmt::join(names, ", "))));
}

size_t parse_model(
    const std::string& key,
    std::string_view text,
    size_t models) {
  size_t model = 0;
  const char* const end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, model);
  if (error != std::errc() || stop != end || model >= models) {
    fail(
        key,
        fmt::format(
            "expected a model from 0 to {}, or *, got '{}'", models - 1, text));
  }
  return model;
}

std::vector<std::string_view> split(std::string_view text, char at) {
  std::vector<std::string_view> parts;
  while (true) {
    const size_t end = text.find(at);
    parts.push_back(text.substr(0, end));
    if (end == text.npos) {
      return parts;
    }
    text.remove_prefix(end + 1);
  }
}

void parse_range(std::string_view text, SearchedParameter& searched) {
  const std::string& key = searched.key;
  const ParameterInfo& parameter = *searched.parameter;
  if (parameter.is_flag) {
    fail(key, "expected true, false or both, separated by a comma");
  }
  searched.logarithmic = text.ends_with(kLog);
  if (searched.logarithmic) {
    text.remove_suffix(kLog.size());
    if (parameter.is_whole) {
      fail(key, "expected a range of whole numbers without :log");
    }
  }
  const size_t to = text.find(kTo);
  const auto number = [&](std::string_view end) {
    const Setting setting = parse_setting(key, parameter, std::string(end));
    if (setting.has_auto()) {
      fail(key, "expected numbers as the ends of a range, got auto");
    }
    return *setting.at("", 0);
  };
  searched.low = number(text.substr(0, to));
  searched.high = number(text.substr(to + kTo.size()));
  if (searched.low >= searched.high) {
    fail(
        key,
        fmt::format(
            "expected a range from a lower to a higher value, got {}", text));
  }
  if (searched.logarithmic && searched.low <= 0) {
    fail(
        key,
        fmt::format(
            "expected a range above 0 with :log, got {}", searched.low));
  }
}

void parse_values(std::string_view text, SearchedParameter& searched) {
  if (text.find(kTo) != text.npos) {
    parse_range(text, searched);
    return;
  }
  for (const std::string_view part : split(text, ',')) {
    const std::string value =
        parse_setting(searched.key, *searched.parameter, std::string(part))
            .to_yaml();
    if (std::ranges::find(searched.values, value) != searched.values.end()) {
      fail(searched.key, fmt::format("{} is given twice", value));
    }
    searched.values.push_back(value);
  }
}

// The parameters that one argument adds.
SearchSpace parse_one(const Recipe& recipe, std::string_view argument) {
  const size_t equals = argument.find('=');
  if (equals == argument.npos) {
    throw InputError(fmt::format(
        "--over: expected KEY=LOW..HIGH or KEY=VALUE,VALUE, got '{}'",
        argument));
  }
  std::string key(argument.substr(0, equals));
  const size_t models = recipe.models.size();
  std::vector<std::optional<size_t>> of = {std::nullopt};
  std::string_view name = key;
  if (name.starts_with(kModels)) {
    name.remove_prefix(kModels.size());
    const size_t dot = std::min(name.find('.'), name.size());
    const std::string_view model = name.substr(0, dot);
    name = name.substr(std::min(dot + 1, name.size()));
    of.clear();
    for (size_t t = 0; model == kEach && t < models; ++t) {
      of.emplace_back(t);
    }
    if (model != kEach) {
      of.emplace_back(parse_model(key, model, models));
    }
  }
  const ParameterInfo& parameter = find_parameter(key, *recipe.method, name);
  if (of.front() && parameter.scope == ParameterInfo::Scope::kMerge) {
    fail(
        key,
        fmt::format("{} is a parameter of the merge, not of a model", name));
  }
  SearchedParameter searched;
  searched.key = key;
  searched.parameter = &parameter;
  parse_values(argument.substr(equals + 1), searched);
  SearchSpace space;
  for (const std::optional<size_t> model : of) {
    searched.model = model;
    if (model) {
      searched.key = fmt::format("{}{}.{}", kModels, *model, parameter.name);
    }
    space.push_back(searched);
  }
  return space;
}

// True if both set a value of the same model.
bool overlap(const SearchedParameter& a, const SearchedParameter& b) {
  return a.parameter == b.parameter &&
      (!a.model || !b.model || a.model == b.model);
}

} // namespace

std::string SearchedParameter::at(double u) const {
  if (!values.empty()) {
    const auto count = static_cast<double>(values.size());
    return values[std::min(values.size() - 1, static_cast<size_t>(u * count))];
  }
  if (parameter->is_whole) {
    return fmt::format(
        "{:.0f}", std::min(high, std::floor(low + u * (high - low + 1))));
  }
  const double exact =
      logarithmic ? low * std::pow(high / low, u) : low + u * (high - low);
  const double rounded = std::stod(fmt::format("{:.4g}", exact));
  return fmt::format("{}", std::clamp(rounded, low, high));
}

SearchSpace parse_search_space(
    const Recipe& recipe,
    const std::vector<std::string>& over) {
  SearchSpace space;
  for (const std::string& argument : over) {
    for (SearchedParameter& searched : parse_one(recipe, argument)) {
      for (const SearchedParameter& other : space) {
        if (overlap(other, searched)) {
          fail(
              searched.key,
              fmt::format("sets a value that {} also sets", other.key));
        }
      }
      space.push_back(std::move(searched));
    }
  }
  return space;
}

Recipe with_values(
    Recipe recipe,
    const SearchSpace& space,
    const std::vector<std::string>& values) {
  for (size_t i = 0; i < space.size(); ++i) {
    const SearchedParameter& searched = space[i];
    const std::string name(searched.parameter->name);
    const Setting setting =
        parse_setting(searched.key, *searched.parameter, values[i]);
    if (searched.parameter->scope == ParameterInfo::Scope::kMerge) {
      recipe.parameters.insert_or_assign(name, setting);
      continue;
    }
    if (searched.model) {
      recipe.models[*searched.model].parameters.insert_or_assign(name, setting);
      continue;
    }
    // Directions of a subspace have no weight of their own.
    recipe.parameters.insert_or_assign(name, setting);
    for (RecipeModel& model : recipe.models) {
      model.parameters.erase(name);
    }
  }
  return recipe;
}

} // namespace merganser
