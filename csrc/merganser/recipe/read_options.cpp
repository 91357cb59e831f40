#include "merganser/recipe/read_options.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <utility>
#include <vector>

#include "merganser/base/error.h"
#include "merganser/base/problems.h"
#include "merganser/io/hub_cache.h"
#include "merganser/recipe/methods.h"

namespace merganser {
namespace {

// A key of mergekit that only affects its memory.
constexpr std::string_view kInt8Mask = "int8_mask";

constexpr std::array<std::pair<DType, std::string_view>, 4> kTorchDTypes = {
    {{DType::kF32, "float32"},
     {DType::kBF16, "bfloat16"},
     {DType::kF16, "float16"},
     {DType::kF64, "float64"}}};

DType parse_torch_dtype(const YamlValue& value) {
  const std::string text = value.text();
  for (const auto& [dtype, name] : kTorchDTypes) {
    if (text == name) {
      return dtype;
    }
  }
  value.fail(fmt::format(
      "{} must be float32, bfloat16, float16 or float64, not '{}'",
      value.name(),
      text));
}

HeadMode parse_heads(const YamlValue& value) {
  const std::string name = value.text();
  for (HeadMode mode :
       {HeadMode::kMerge, HeadMode::kPerTask, HeadMode::kBase}) {
    if (name == head_mode_name(mode)) {
      return mode;
    }
  }
  value.fail(
      fmt::format("heads must be merge, per_task or base, not '{}'", name));
}

// The method's own parameter of that name, or another method's: a recipe may
// keep its parameters when its method changes.
const ParameterInfo* find_known(
    const MethodInfo& method,
    std::string_view name) {
  const ParameterInfo* found = method.find_parameter(name);
  for (const MethodInfo* other : merge_methods()) {
    found = found == nullptr ? other->find_parameter(name) : found;
  }
  return found;
}

std::vector<std::string_view> known_names(const MethodInfo& method) {
  std::vector<std::string_view> names;
  const auto add = [&](const MethodInfo& from) {
    for (const ParameterInfo& parameter : from.parameters) {
      if (std::ranges::find(names, parameter.name) == names.end()) {
        names.push_back(parameter.name);
      }
    }
  };
  add(method);
  for (const MethodInfo* other : merge_methods()) {
    add(*other);
  }
  return names;
}

// Throws InputError for `auto` where only other methods take it.
void check_auto(
    const YamlValue& value,
    const ParameterInfo& parameter,
    const MethodInfo& method) {
  std::vector<std::string_view> names;
  for (const MethodInfo* other : merge_methods()) {
    const ParameterInfo* found = other->find_parameter(parameter.name);
    if (found != nullptr && found->may_be_auto) {
      names.push_back(other->name);
    }
  }
  if (value.is_text(kAutoText) && !parameter.may_be_auto && !names.empty()) {
    value.fail(fmt::format(
        "the method {} does not take {}: auto; available: {}",
        method.name,
        parameter.name,
        fmt::join(names, ", ")));
  }
}

Setting parse_setting(
    const YamlValue& value,
    std::string_view name,
    const MethodInfo& method,
    ParameterInfo::Scope scope) {
  const ParameterInfo& parameter = *find_known(method, name);
  if (scope == ParameterInfo::Scope::kModel && parameter.scope != scope) {
    value.fail(
        fmt::format("{} is a parameter of the merge, not of a model", name));
  }
  if (name == "normalize" && !method.find_parameter(name) && value.flag()) {
    value.fail(fmt::format(
        "the method {} does not normalize weights: its formula does",
        method.name));
  }
  check_auto(value, parameter, method);
  return Setting::parse(value, parameter);
}

} // namespace

std::filesystem::path parse_model_directory(
    const YamlValue& value,
    const std::filesystem::path& folder) {
  return value.through([&](const std::string& text) {
    return find_model(text, value.path(folder));
  });
}

std::string_view torch_dtype_name(DType dtype) {
  for (const auto& [value, name] : kTorchDTypes) {
    if (value == dtype) {
      return name;
    }
  }
  throw InputError(fmt::format(
      "cannot merge in {}; expected F16, BF16, F32 or F64", dtype_name(dtype)));
}

const MethodInfo& parse_method(const YamlValue& name) {
  return name.through(
      [](const auto& text) -> const MethodInfo& { return find_method(text); });
}

Settings parse_settings(
    const YamlValue& mapping,
    const MethodInfo& method,
    ParameterInfo::Scope scope) {
  std::vector<std::string_view> names = known_names(method);
  names.push_back(kInt8Mask);
  Problems problems;
  mapping.expect_keys(names, problems);
  Settings settings;
  for (const std::string_view name : names) {
    const auto value = mapping.find(name);
    if (value && name == kInt8Mask) {
      problems.collect([&] { value->flag(); });
    } else if (value) {
      problems.collect([&] {
        settings.emplace(name, parse_setting(*value, name, method, scope));
      });
    }
  }
  problems.throw_if_any();
  return settings;
}

void check_count(const MethodInfo& method, int models) {
  if (models < method.min_models) {
    throw InputError(fmt::format(
        "the method {} needs at least {} {} in addition to the base, not {}",
        method.name,
        method.min_models,
        method.min_models == 1 ? "model" : "models",
        models));
  }
  if (method.max_models > 0 && models > method.max_models) {
    throw InputError(fmt::format(
        "the method {} takes one model{}, not {}",
        method.name,
        method.needs_base ? " in addition to the base" : "",
        models));
  }
}

void parse_recipe_options(const YamlValue& mapping, Recipe& recipe) {
  Problems problems;
  const auto take = [&](std::string_view key, const auto& use) {
    if (const auto value = mapping.given(key)) {
      problems.collect([&] { use(*value); });
    }
  };
  take("parameters", [&](const YamlValue& parameters) {
    recipe.parameters = parse_settings(
        parameters, *recipe.method, ParameterInfo::Scope::kMerge);
  });
  take("heads", [&](const YamlValue& heads) {
    recipe.heads = parse_heads(heads);
  });
  // mergekit computes in `dtype` and writes `out_dtype`, or else `dtype`. Here
  // arithmetic is always float32 or float64.
  take("dtype", [&](const YamlValue& dtype) {
    recipe.out_dtype = parse_torch_dtype(dtype);
    recipe.float64 = recipe.out_dtype == DType::kF64;
  });
  take("out_dtype", [&](const YamlValue& dtype) {
    recipe.out_dtype = parse_torch_dtype(dtype);
  });
  problems.throw_if_any();
}

} // namespace merganser
