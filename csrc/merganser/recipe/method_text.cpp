// Prints the table of methods for people and for programs.

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <vector>

#include "merganser/base/json_text.h"
#include "merganser/base/text_table.h"
#include "merganser/recipe/methods.h"

namespace merganser {
namespace {

constexpr double kLargest = std::numeric_limits<double>::max();

std::string range(const ParameterInfo& parameter) {
  if (parameter.is_flag) {
    return "true, false";
  }
  if (parameter.min == -kLargest && parameter.max == kLargest) {
    return parameter.may_be_auto ? "any number, auto" : "any number";
  }
  if (parameter.max == kLargest) {
    return fmt::format("{} {}", parameter.above_min ? ">" : "≥", parameter.min);
  }
  return fmt::format(
      "{}{}, {}]",
      parameter.above_min ? "(" : "[",
      parameter.min,
      parameter.max);
}

std::string fallback(const ParameterInfo& parameter) {
  if (!parameter.fallback) {
    return "none";
  }
  if (parameter.is_flag) {
    return *parameter.fallback != 0 ? "true" : "false";
  }
  return std::isnan(*parameter.fallback)
      ? "auto"
      : fmt::format("{}", *parameter.fallback);
}

std::vector<std::string> needs(const MethodInfo& method) {
  std::vector<std::string> keys;
  if (method.needs_base) {
    keys.emplace_back("base_model");
  }
  if (method.needs_fishers) {
    keys.emplace_back("fisher");
  }
  if (method.needs_base_fisher) {
    keys.emplace_back("base_fisher");
  }
  if (method.needs_subspace) {
    keys.emplace_back("subspace");
  }
  if (method.needs_grams()) {
    keys.emplace_back("gram");
  }
  if (method.needs_base_gram()) {
    keys.emplace_back("base_gram");
  }
  return keys;
}

std::vector<std::string> parameter_names(const MethodInfo& method) {
  std::vector<std::string> names;
  for (const ParameterInfo& parameter : method.parameters) {
    const ParameterInfo* first = nullptr;
    for (const MethodInfo* other : merge_methods()) {
      first = first == nullptr ? other->find_parameter(parameter.name) : first;
    }
    // Adds the default if it differs from that in the table of parameters.
    names.push_back(
        first->fallback == parameter.fallback
            ? std::string(parameter.name)
            : fmt::format("{}: {}", parameter.name, fallback(parameter)));
  }
  return names;
}

// Each parameter once, with the description of the first method that has it.
std::vector<const ParameterInfo*> all_parameters() {
  std::vector<const ParameterInfo*> all;
  for (const MethodInfo* method : merge_methods()) {
    for (const ParameterInfo& parameter : method->parameters) {
      const bool known = std::ranges::any_of(all, [&](const auto* other) {
        return other->name == parameter.name;
      });
      if (!known) {
        all.push_back(&parameter);
      }
    }
  }
  return all;
}

const char* scope(const ParameterInfo& parameter) {
  return parameter.scope == ParameterInfo::Scope::kModel ? "model" : "merge";
}

} // namespace

std::string methods_text() {
  std::vector<std::vector<std::string>> rows = {{"method", "result"}};
  for (const MethodInfo* method : merge_methods()) {
    rows.push_back({std::string(method->name), std::string(method->text)});
  }
  std::string text = format_table(rows) + '\n';
  rows = {{"parameter", "per", "range", "default", "meaning"}};
  for (const ParameterInfo* parameter : all_parameters()) {
    rows.push_back(
        {std::string(parameter->name),
         scope(*parameter),
         range(*parameter),
         fallback(*parameter),
         std::string(parameter->meaning)});
  }
  return text + format_table(rows);
}

std::string methods_markdown() {
  std::string text =
      "| `merge_method` | result | needs | parameters | source |\n"
      "|---|---|---|---|---|\n";
  for (const MethodInfo* method : merge_methods()) {
    text += fmt::format(
        "| `{}` | `{}` | {} | {} | {} |\n",
        method->name,
        method->text,
        fmt::join(needs(*method), ", "),
        fmt::join(parameter_names(*method), ", "),
        method->source);
  }
  text +=
      "\n| parameter | per | range | default | meaning |\n"
      "|---|---|---|---|---|\n";
  for (const ParameterInfo* parameter : all_parameters()) {
    text += fmt::format(
        "| `{}` | {} | {} | {} | {} |\n",
        parameter->name,
        scope(*parameter),
        range(*parameter),
        fallback(*parameter),
        parameter->meaning);
  }
  return text;
}

std::string methods_json() {
  using nlohmann::ordered_json;
  ordered_json all = ordered_json::array();
  for (const MethodInfo* method : merge_methods()) {
    ordered_json entry = {
        {"name", method->name},
        {"formula", method->text},
        {"source", method->source},
        {"needs", needs(*method)},
        {"parameters", ordered_json::array()}};
    for (const ParameterInfo& parameter : method->parameters) {
      entry["parameters"].push_back(
          {{"name", parameter.name},
           {"of", scope(parameter)},
           {"range", range(parameter)},
           {"default", fallback(parameter)},
           {"meaning", parameter.meaning}});
    }
    all.push_back(std::move(entry));
  }
  return json_text(all, 2);
}

} // namespace merganser
