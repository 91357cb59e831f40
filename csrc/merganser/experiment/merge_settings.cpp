#include "merganser/experiment/merge_settings.h"

#include <fmt/format.h>

#include "merganser/experiment/layout.h"
#include "merganser/recipe/read_options.h"

namespace merganser {
namespace {

Setting weight_of(
    const std::string& expert,
    const YamlValue& weight,
    const MethodInfo& method) {
  const ParameterInfo* parameter = method.find_parameter("weight");
  if (parameter == nullptr) {
    weight.fail(fmt::format("method {} has no parameter weight", method.name));
  }
  return Setting::parse(
      weight.is_mapping() ? weight.at(expert) : weight, *parameter);
}

// The parameters that the method uses.
std::string parameters_text(const Recipe& recipe) {
  std::string text;
  for (const auto& [name, setting] : recipe.parameters) {
    if (recipe.method->find_parameter(name)) {
      text += fmt::format("  {}: {}\n", name, setting.to_yaml());
    }
  }
  return text.empty() ? text : "parameters:\n" + text;
}

} // namespace

ExperimentMerge parse_merge(
    const YamlValue& entry,
    const std::vector<std::string>& experts,
    const MergeBase& base) {
  entry.expect_keys(
      {"name",
       "method",
       "weight",
       "parameters",
       "heads",
       "dtype",
       "out_dtype"});
  ExperimentMerge merge;
  const YamlValue name = entry.at("name");
  merge.name = name.text();
  layout::check_name(name, merge.name);
  Recipe& recipe = merge.recipe;
  recipe.method = &parse_method(entry.at("method"));
  parse_recipe_options(entry, recipe);

  const MethodInfo& method = *recipe.method;
  if (method.needs_grams()) {
    entry.at("method").fail(fmt::format(
        "{} needs Gram matrices, which an experiment does not collect",
        method.name));
  }
  const std::string up = layout::kUpFromRecipe;
  if (method.needs_base || recipe.heads != HeadMode::kMerge) {
    recipe.base_model = up + base.model;
  }
  if (method.needs_base_fisher) {
    recipe.base_fisher = up + base.fisher;
  }
  const auto weight = entry.find("weight");
  if (weight && weight->is_mapping()) {
    weight->expect_keys(
        std::vector<std::string_view>(experts.begin(), experts.end()));
  }
  for (const std::string& expert : experts) {
    RecipeModel model;
    model.model = up + layout::model(expert);
    if (method.needs_fishers) {
      model.fisher = up + layout::fisher(expert);
    }
    if (weight) {
      model.parameters.emplace("weight", weight_of(expert, *weight, method));
    }
    recipe.models.push_back(std::move(model));
  }
  const auto refuse_sweeps = [&](const Settings& settings) {
    for (const auto& [parameter, setting] : settings) {
      if (setting.is_sweep()) {
        entry.fail(fmt::format(
            "{}: {} is a sweep, but a merge of an experiment yields one model",
            entry.name(),
            parameter));
      }
    }
  };
  refuse_sweeps(recipe.parameters);
  for (const RecipeModel& model : recipe.models) {
    refuse_sweeps(model.parameters);
  }
  // Finds errors of the whole recipe, such as weights that sum to 0.
  try {
    Recipe::parse(recipe_text(recipe), "", layout::recipe(merge.name));
  } catch (const InputError& error) {
    entry.fail(fmt::format("{}: {}", entry.name(), error.what()));
  }
  return merge;
}

std::string recipe_text(const Recipe& recipe) {
  const MethodInfo& method = *recipe.method;
  std::string text = fmt::format("merge_method: {}\n", method.name);
  if (recipe.base_model) {
    text += fmt::format("base_model: {}\n", recipe.base_model->string());
  }
  if (recipe.base_fisher) {
    text += fmt::format("base_fisher: {}\n", recipe.base_fisher->string());
  }
  text += "models:\n";
  for (const RecipeModel& model : recipe.models) {
    text += fmt::format("  - model: {}\n", model.model.string());
    if (model.fisher) {
      text += fmt::format("    fisher: {}\n", model.fisher->string());
    }
    const auto weight = model.parameters.find("weight");
    if (weight != model.parameters.end()) {
      text += fmt::format(
          "    parameters: {{weight: {}}}\n", weight->second.to_yaml());
    }
  }
  text += parameters_text(recipe);
  text += fmt::format("heads: {}\n", head_mode_name(recipe.heads));
  if (recipe.float64) {
    text += "dtype: float64\n";
  }
  if (recipe.out_dtype) {
    text += fmt::format("out_dtype: {}\n", torch_dtype_name(*recipe.out_dtype));
  }
  return text;
}

} // namespace merganser
