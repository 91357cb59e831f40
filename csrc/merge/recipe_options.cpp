#include "merge/recipe_options.h"

#include <fmt/format.h>

#include <array>
#include <utility>

#include "io/error.h"

namespace merganser {
namespace {

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

void parse_parameters(const YamlValue& parameters, Recipe& recipe) {
  parameters.expect_keys({"normalize", "delta", "clamp", "floor"});
  if (const auto normalize = parameters.find("normalize")) {
    recipe.normalize = normalize->boolean();
    if (recipe.normalize && !method_info(recipe.method).normalizes) {
      normalize->fail(fmt::format(
          "the method {} does not normalize weights: its formula does",
          method_info(recipe.method).name));
    }
  }
  if (const auto delta = parameters.find("delta")) {
    recipe.delta = delta->number(0);
  }
  if (const auto clamp = parameters.find("clamp")) {
    recipe.clamp = clamp->number(0, 1);
    clamp->positive();
  }
  if (const auto floor = parameters.find("floor")) {
    recipe.floor = floor->positive();
  }
}

} // namespace

std::string_view head_mode_name(HeadMode mode) {
  switch (mode) {
    case HeadMode::kMerge:
      return "merge";
    case HeadMode::kPerTask:
      return "per_task";
    case HeadMode::kBase:
      return "base";
  }
  return "";
}

std::string_view torch_dtype_name(DType dtype) {
  for (const auto& [value, name] : kTorchDTypes) {
    if (value == dtype) {
      return name;
    }
  }
  throw InputError(
      fmt::format("{} is not a type to merge in", dtype_name(dtype)));
}

void parse_method(const YamlValue& name, Recipe& recipe) {
  const MethodInfo& method =
      name.through([](const auto& text) { return find_method(text); });
  recipe.method = method.method;
  recipe.normalize = method.normalizes_by_default;
}

void parse_recipe_options(const YamlValue& mapping, Recipe& recipe) {
  if (const auto parameters = mapping.find("parameters")) {
    parse_parameters(*parameters, recipe);
  }
  if (const auto heads = mapping.find("heads")) {
    recipe.heads = parse_heads(*heads);
  }
  // mergekit computes in `dtype` and writes `out_dtype`, or else `dtype`. Less
  // than float32 is never used for arithmetic here.
  if (const auto dtype = mapping.find("dtype")) {
    recipe.out_dtype = parse_torch_dtype(*dtype);
    recipe.float64 = recipe.out_dtype == DType::kF64;
  }
  if (const auto dtype = mapping.find("out_dtype")) {
    recipe.out_dtype = parse_torch_dtype(*dtype);
  }
}

double parse_weight(const YamlValue& value, const MethodInfo& method) {
  // A negative weight would make denominators vanish.
  return method.needs_fishers ? value.number(0) : value.number();
}

} // namespace merganser
