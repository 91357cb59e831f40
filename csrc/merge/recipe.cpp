#include "merge/recipe.h"

#include <fmt/format.h>

#include "io/atomic_file.h"
#include "io/error.h"
#include "io/yaml_value.h"

namespace merganser {
namespace {

namespace fs = std::filesystem;

// As mergekit (and torch) name them.
DType parse_torch_dtype(const YamlValue& value) {
  const std::string name = value.text();
  if (name == "float32") {
    return DType::kF32;
  } else if (name == "bfloat16") {
    return DType::kBF16;
  } else if (name == "float16") {
    return DType::kF16;
  } else if (name == "float64") {
    return DType::kF64;
  }
  value.fail(fmt::format(
      "{} must be float32, bfloat16, float16 or float64, not '{}'",
      value.name(),
      name));
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

fs::path parse_path(const YamlValue& value, const fs::path& folder) {
  return (folder / value.text()).lexically_normal();
}

double parse_positive(const YamlValue& value) {
  const double number = value.number(0);
  if (number == 0) {
    value.fail(fmt::format("{} must be greater than 0", value.name()));
  }
  return number;
}

RecipeModel parse_model(
    const YamlValue& entry,
    const MethodInfo& method,
    const fs::path& folder) {
  entry.expect_keys({"model", "fisher", "num_examples", "parameters"});
  RecipeModel model;
  model.model = parse_path(entry.at("model"), folder);
  if (const auto fisher = entry.find("fisher")) {
    model.fisher = parse_path(*fisher, folder);
  } else if (method.needs_fishers) {
    entry.fail(fmt::format(
        "{} needs the key fisher: the method {} uses a Fisher of every model",
        entry.name(),
        method.name));
  }
  if (const auto count = entry.find("num_examples")) {
    model.num_examples = parse_positive(*count);
  }
  if (const auto parameters = entry.find("parameters")) {
    parameters->expect_keys({"weight"});
    if (const auto weight = parameters->find("weight")) {
      // A negative weight would make denominators vanish.
      model.weight =
          method.needs_fishers ? weight->number(0) : weight->number();
    }
  }
  return model;
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
    parse_positive(*clamp);
  }
  if (const auto floor = parameters.find("floor")) {
    recipe.floor = parse_positive(*floor);
  }
}

void parse_base(
    const YamlValue& root,
    const MethodInfo& method,
    const fs::path& folder,
    Recipe& recipe) {
  if (const auto base = root.find("base_model")) {
    recipe.base_model = parse_path(*base, folder);
  } else if (method.needs_base) {
    root.at("merge_method")
        .fail(fmt::format("the method {} needs base_model", method.name));
  } else if (recipe.heads != HeadMode::kMerge) {
    root.at("heads").fail(fmt::format(
        "heads: {} needs base_model", head_mode_name(recipe.heads)));
  }
  if (const auto fisher = root.find("base_fisher")) {
    recipe.base_fisher = parse_path(*fisher, folder);
  } else if (method.needs_base_fisher) {
    root.at("merge_method")
        .fail(fmt::format("the method {} needs base_fisher", method.name));
  }
  if (const auto count = root.find("base_num_examples")) {
    recipe.base_num_examples = parse_positive(*count);
  }
}

// The weights must not sum to nothing where they are divided by their sum, nor
// all be zero where the formula divides by them.
void check_weights(
    const YamlValue& models,
    const MethodInfo& method,
    const Recipe& recipe) {
  double sum = 0;
  for (const auto& model : recipe.models) {
    sum += model.weight;
  }
  if (sum == 0 && (recipe.normalize || method.needs_fishers)) {
    models.fail("the weights of the models must not sum to 0");
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

Recipe Recipe::load(const fs::path& path) {
  return parse(read_file(path), path.parent_path(), path.string());
}

Recipe Recipe::parse(
    const std::string& yaml,
    const fs::path& folder,
    const std::string& source_name) {
  const YamlValue root = YamlValue::parse(yaml, source_name);
  root.expect_keys(
      {"merge_method",
       "base_model",
       "base_fisher",
       "base_num_examples",
       "models",
       "parameters",
       "heads",
       "dtype",
       "out_dtype"});
  Recipe recipe;
  recipe.source = source_name;
  recipe.text = yaml;

  const YamlValue name = root.at("merge_method");
  try {
    recipe.method = find_method(name.text()).method;
  } catch (const InputError& error) {
    name.fail(error.what());
  }
  const MethodInfo& method = method_info(recipe.method);
  recipe.normalize = method.normalizes_by_default;
  if (const auto heads = root.find("heads")) {
    recipe.heads = parse_heads(*heads);
  }
  parse_base(root, method, folder, recipe);
  const YamlValue models = root.at("models");
  for (const YamlValue& entry : models.items()) {
    recipe.models.push_back(parse_model(entry, method, folder));
  }
  if (const auto parameters = root.find("parameters")) {
    parse_parameters(*parameters, recipe);
  }
  check_weights(models, method, recipe);

  // mergekit computes in `dtype` and writes `out_dtype`, or else `dtype`. Less
  // than float32 is never used for arithmetic here.
  if (const auto dtype = root.find("dtype")) {
    recipe.out_dtype = parse_torch_dtype(*dtype);
    recipe.float64 = recipe.out_dtype == DType::kF64;
  }
  if (const auto dtype = root.find("out_dtype")) {
    recipe.out_dtype = parse_torch_dtype(*dtype);
  }
  return recipe;
}

std::vector<double> Recipe::weights() const {
  std::vector<double> weights;
  double sum = 0;
  for (const auto& model : models) {
    weights.push_back(model.weight);
    sum += model.weight;
  }
  if (normalize) {
    for (double& weight : weights) {
      weight /= sum;
    }
  }
  return weights;
}

} // namespace merganser
