#include "merganser/experiment/merge_settings.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "merganser/experiment/layout.h"
#include "merganser/recipe/read_options.h"
#include "merganser/recipe/recipe_text.h"
#include "merganser/search/search_options.h"

namespace merganser {
namespace {

// True for {expert: weight, ...}, false for {sweep: [...]}.
bool gives_experts(const YamlValue& weight) {
  return weight.is_mapping() && !weight.find("sweep");
}

Setting weight_of(
    const std::string& expert,
    const YamlValue& weight,
    const MethodInfo& method) {
  const ParameterInfo* parameter = method.find_parameter("weight");
  if (parameter == nullptr) {
    weight.fail(fmt::format("method {} has no parameter weight", method.name));
  }
  return Setting::parse(
      gives_experts(weight) ? weight.at(expert) : weight, *parameter);
}

// True for `gram: task_vectors` in place of Gram matrices of the experts' data.
bool takes_task_vectors(const YamlValue& entry, const MethodInfo& method) {
  const auto gram = entry.find("gram");
  if (gram && (gram->text() != kTaskVectors || !method.needs_grams())) {
    gram->fail(fmt::format(
        "{}: expected {}, and a method with Gram matrices, got '{}' and {}",
        gram->name(),
        kTaskVectors,
        gram->text(),
        method.name));
  }
  return gram.has_value();
}

// The experts that the merge lists; by default all.
std::vector<std::string> parse_experts(
    const YamlValue& entry,
    const std::vector<std::string>& all) {
  const auto list = entry.find("experts");
  if (!list) {
    return all;
  }
  std::vector<std::string> experts;
  for (const YamlValue& item : list->items()) {
    const std::string expert = item.text();
    if (std::ranges::find(all, expert) == all.end()) {
      item.fail(fmt::format("unknown expert '{}'", expert));
    }
    if (std::ranges::find(experts, expert) != experts.end()) {
      item.fail(fmt::format("'{}' is given twice", expert));
    }
    experts.push_back(expert);
  }
  return experts;
}

// Names of earlier merges whose displacements are also in the span.
std::vector<std::string> parse_directions(
    const YamlValue& entry,
    const std::vector<ExperimentMerge>& earlier) {
  std::vector<std::string> directions;
  const auto list = entry.given("directions");
  for (const YamlValue& item :
       list ? list->items() : std::vector<YamlValue>{}) {
    const std::string name = item.text();
    const auto merge = std::ranges::find(earlier, name, &ExperimentMerge::name);
    if (merge == earlier.end() || merge->recipe.uses_subspace()) {
      item.fail(fmt::format(
          "{}: expected the name of an earlier merge of the experiment that "
          "uses no subspace, got '{}'",
          item.name(),
          name));
    }
    if (std::ranges::find(directions, name) != directions.end()) {
      item.fail(fmt::format("'{}' is given twice", name));
    }
    directions.push_back(name);
  }
  return directions;
}

// Names the merge in the errors of its settings.
bool uses_subspace(const YamlValue& entry, const Recipe& recipe) {
  try {
    return recipe.uses_subspace();
  } catch (const InputError& error) {
    entry.fail(fmt::format("{}: {}", entry.name(), error.what()));
  }
}

// The file of a model's Fisher: a calibrated copy where the merge uses its
// scale.
std::string fisher_of(
    const std::string& model,
    const Recipe& recipe,
    std::string_view scale) {
  return uses_measured_scale(recipe, scale) ? layout::calibrated(model)
                                            : layout::fisher(model);
}

std::vector<double> values_of(const Setting& sweep) {
  std::vector<double> values;
  for (size_t i = 0; i < sweep.outputs(); ++i) {
    values.push_back(*sweep.at("", 0, i));
  }
  return values;
}

// The sweep of a recipe's parameter, which several models may share.
std::optional<MergeSweep> parse_sweep(
    const YamlValue& entry,
    const Recipe& recipe) {
  std::optional<MergeSweep> sweep;
  const auto add = [&](const Settings& settings) {
    for (const auto& [parameter, setting] : settings) {
      if (!setting.is_sweep() || !recipe.method->find_parameter(parameter)) {
        continue;
      }
      MergeSweep found{parameter, values_of(setting)};
      if (sweep &&
          (sweep->parameter != parameter || sweep->values != found.values)) {
        entry.fail(
            fmt::format("{}: expected one sweep, got two", entry.name()));
      }
      sweep = std::move(found);
    }
  };
  add(recipe.parameters);
  for (const RecipeModel& model : recipe.models) {
    add(model.parameters);
  }
  const auto by = entry.find("choose");
  if (by && !sweep) {
    by->fail("choose selects a value of a sweep, but the merge has none");
  }
  if (!sweep) {
    return std::nullopt;
  }
  const std::set<double> distinct(sweep->values.begin(), sweep->values.end());
  if (distinct.size() < sweep->values.size()) {
    entry.fail(fmt::format("{}: a value is given twice", entry.name()));
  }
  if (by) {
    sweep->by_loss = by->through(parse_by_loss);
  }
  return sweep;
}

} // namespace

bool uses_rho(const Recipe& recipe) {
  return recipe.method->find_parameter("rho") != nullptr;
}

bool uses_measured_scale(const Recipe& recipe, std::string_view parameter) {
  const Setting* setting = find_setting(parameter, {&recipe.parameters});
  return setting != nullptr && setting->has_auto() &&
      recipe.method->find_parameter(parameter) != nullptr;
}

ExperimentMerge parse_merge(
    const YamlValue& entry,
    const std::vector<std::string>& all,
    const MergeBase& base,
    const std::vector<ExperimentMerge>& earlier) {
  entry.expect_keys(
      {"name",
       "method",
       "experts",
       "directions",
       "weight",
       "choose",
       "gram",
       "parameters",
       "heads",
       "dtype",
       "out_dtype"});
  ExperimentMerge merge;
  const YamlValue name = entry.at("name");
  merge.name = name.text();
  layout::check_name(name, merge.name);
  merge.experts = parse_experts(entry, all);
  merge.directions = parse_directions(entry, earlier);
  Recipe& recipe = merge.recipe;
  recipe.method = &parse_method(entry.at("method"));
  parse_recipe_options(entry, recipe);

  const MethodInfo& method = *recipe.method;
  const std::string up = layout::kUpFromRecipe;
  const bool of_task_vectors = takes_task_vectors(entry, method);
  if (method.needs_base || of_task_vectors ||
      recipe.heads != HeadMode::kMerge) {
    recipe.base_model = up + base.model;
  }
  if (method.needs_base_fisher) {
    recipe.base_fisher = up + fisher_of(base.name, recipe, "base_fisher_scale");
  }
  if (method.needs_base_gram() && !of_task_vectors) {
    recipe.base_gram = up + layout::gram(base.name);
  }
  const auto weight = entry.find("weight");
  if (weight && gives_experts(*weight)) {
    weight->expect_keys(std::vector<std::string_view>(
        merge.experts.begin(), merge.experts.end()));
  }
  for (const std::string& expert : merge.experts) {
    RecipeModel model;
    model.model = up + layout::model(expert);
    if (method.needs_fishers) {
      model.fisher = up + fisher_of(expert, recipe, "fisher_scale");
    }
    model.gram_of_task_vector = of_task_vectors;
    if (method.needs_grams() && !of_task_vectors) {
      model.gram = up + layout::gram(expert);
    }
    if (weight) {
      model.parameters.emplace("weight", weight_of(expert, *weight, method));
    }
    recipe.models.push_back(std::move(model));
  }
  if (uses_subspace(entry, recipe)) {
    recipe.subspace = up + layout::kSubspace;
  } else if (!merge.directions.empty()) {
    entry.at("directions")
        .fail(fmt::format(
            "{}: directions span a subspace, which {} does not use",
            entry.name(),
            method.name));
  }
  for (const std::string& direction : merge.directions) {
    RecipeModel model;
    model.model = up + layout::merged_model(direction);
    recipe.models.push_back(std::move(model));
  }
  merge.sweep = parse_sweep(entry, recipe);
  const size_t outputs = merge.sweep ? merge.sweep->values.size() : 1;
  // Finds errors of the whole recipe, such as weights that sum to 0.
  try {
    for (size_t i = 0; i < outputs; ++i) {
      Recipe::parse(
          recipe_text(sweep_output(recipe, i)), "", layout::recipe(merge.name));
    }
  } catch (const InputError& error) {
    entry.fail(fmt::format("{}: {}", entry.name(), error.what()));
  }
  return merge;
}

Recipe sweep_output(Recipe recipe, size_t i) {
  const auto choose = [&](Settings& settings) {
    for (auto& [name, setting] : settings) {
      setting = setting.output(i);
    }
  };
  choose(recipe.parameters);
  for (RecipeModel& model : recipe.models) {
    choose(model.parameters);
  }
  return recipe;
}

bool is_sum_of_task_vectors(const Recipe& recipe) {
  const auto is_one = [&](const RecipeModel& model) {
    const Setting* weight =
        find_setting("weight", {&model.parameters, &recipe.parameters});
    return weight == nullptr ||
        (weight->is_constant() && weight->at("", 0) == 1);
  };
  return recipe.method->name == "task_arithmetic" &&
      !recipe.parameters.contains("lambda") &&
      !recipe.parameters.contains("normalize") &&
      std::ranges::all_of(recipe.models, is_one);
}

} // namespace merganser
