#include "merge/recipe.h"

#include <fmt/format.h>

#include "io/atomic_file.h"
#include "io/error.h"
#include "io/yaml_value.h"
#include "merge/recipe_options.h"

namespace merganser {
namespace {

namespace fs = std::filesystem;

RecipeModel parse_model(
    const YamlValue& entry,
    const MethodInfo& method,
    const fs::path& folder) {
  entry.expect_keys({"model", "fisher", "num_examples", "parameters"});
  RecipeModel model;
  model.model = entry.at("model").path(folder);
  if (const auto fisher = entry.find("fisher")) {
    model.fisher = fisher->path(folder);
  } else if (method.needs_fishers) {
    entry.fail(fmt::format(
        "{} needs the key fisher: the method {} uses a Fisher of every model",
        entry.name(),
        method.name));
  }
  if (const auto count = entry.find("num_examples")) {
    model.num_examples = count->positive();
  }
  if (const auto parameters = entry.find("parameters")) {
    parameters->expect_keys({"weight"});
    if (const auto weight = parameters->find("weight")) {
      model.weight = parse_weight(*weight, method);
    }
  }
  return model;
}

void parse_base(
    const YamlValue& root,
    const MethodInfo& method,
    const fs::path& folder,
    Recipe& recipe) {
  if (const auto base = root.find("base_model")) {
    recipe.base_model = base->path(folder);
  } else if (method.needs_base) {
    root.at("merge_method")
        .fail(fmt::format("the method {} needs base_model", method.name));
  } else if (recipe.heads != HeadMode::kMerge) {
    root.at("heads").fail(fmt::format(
        "heads: {} needs base_model", head_mode_name(recipe.heads)));
  }
  if (const auto fisher = root.find("base_fisher")) {
    recipe.base_fisher = fisher->path(folder);
  } else if (method.needs_base_fisher) {
    root.at("merge_method")
        .fail(fmt::format("the method {} needs base_fisher", method.name));
  }
  if (const auto count = root.find("base_num_examples")) {
    recipe.base_num_examples = count->positive();
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

  parse_method(root.at("merge_method"), recipe);
  const MethodInfo& method = method_info(recipe.method);
  parse_recipe_options(root, recipe);
  parse_base(root, method, folder, recipe);
  const YamlValue models = root.at("models");
  for (const YamlValue& entry : models.items()) {
    recipe.models.push_back(parse_model(entry, method, folder));
  }
  check_weights(models, method, recipe);
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
