#include "merganser/recipe/recipe_text.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <vector>

#include "merganser/base/json_text.h"
#include "merganser/recipe/read_options.h"

namespace merganser {
namespace {

bool is_plain(char c) {
  constexpr std::string_view kMarks = "._-/+";
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
      (c >= '0' && c <= '9') || kMarks.find(c) != kMarks.npos;
}

// A scalar of YAML: quoted, as in JSON, where it could be read as anything
// else.
std::string quoted(const std::filesystem::path& path) {
  const std::string text = path.string();
  const bool plain = std::ranges::all_of(text, is_plain) &&
      text.find('/') != text.npos && !text.starts_with('-');
  return plain ? text : json_text(nlohmann::json(text));
}

std::vector<std::string> parameters_of(
    const MethodInfo& method,
    const Settings& settings) {
  std::vector<std::string> parameters;
  for (const auto& [name, setting] : settings) {
    if (method.find_parameter(name) != nullptr) {
      parameters.push_back(fmt::format("{}: {}", name, setting.to_yaml()));
    }
  }
  return parameters;
}

class Writer {
 public:
  explicit Writer(const Recipe& recipe) : recipe_(recipe) {
    line("", "merge_method", recipe.method->name);
    file("", "base_model", recipe.base_model);
    file("", "base_fisher", recipe.base_fisher);
    file("", "base_gram", recipe.base_gram);
    file("", "subspace", recipe.subspace);
    number("", "base_num_examples", recipe.base_num_examples);
    text_ += "models:\n";
    for (const RecipeModel& model : recipe.models) {
      add(model);
    }
    const auto parameters = parameters_of(*recipe.method, recipe.parameters);
    if (!parameters.empty()) {
      text_ +=
          fmt::format("parameters:\n  {}\n", fmt::join(parameters, "\n  "));
    }
    line("", "heads", head_mode_name(recipe.heads));
    if (recipe.float64) {
      line("", "dtype", "float64");
    }
    if (recipe.out_dtype) {
      line("", "out_dtype", torch_dtype_name(*recipe.out_dtype));
    }
  }

  std::string text() && {
    return std::move(text_);
  }

 private:
  void add(const RecipeModel& model) {
    constexpr std::string_view kInside = "    ";
    line("  - ", "model", quoted(model.model));
    file(kInside, "adapter", model.adapter);
    file(kInside, "fisher", model.fisher);
    if (model.gram_of_task_vector) {
      line(kInside, "gram", kTaskVectors);
    } else {
      file(kInside, "gram", model.gram);
    }
    number(kInside, "num_examples", model.num_examples);
    const auto parameters = parameters_of(*recipe_.method, model.parameters);
    if (!parameters.empty()) {
      line(
          kInside,
          "parameters",
          fmt::format("{{{}}}", fmt::join(parameters, ", ")));
    }
  }

  void line(
      std::string_view indent,
      std::string_view key,
      std::string_view value) {
    text_ += fmt::format("{}{}: {}\n", indent, key, value);
  }

  void file(
      std::string_view indent,
      std::string_view key,
      const std::optional<std::filesystem::path>& path) {
    if (path) {
      line(indent, key, quoted(*path));
    }
  }

  void number(
      std::string_view indent,
      std::string_view key,
      const std::optional<double>& value) {
    if (value) {
      line(indent, key, fmt::format("{}", *value));
    }
  }

  const Recipe& recipe_;
  std::string text_;
};

} // namespace

std::string recipe_text(const Recipe& recipe) {
  return Writer(recipe).text();
}

} // namespace merganser
