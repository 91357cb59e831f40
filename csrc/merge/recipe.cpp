#include "merge/recipe.h"

#include <fmt/format.h>

#include <algorithm>

#include "io/atomic_file.h"
#include "io/error.h"
#include "io/yaml_value.h"
#include "merge/recipe_options.h"
#include "merge/tensor_parameters.h"

namespace merganser {
namespace {

namespace fs = std::filesystem;

// "model+adapter", as mergekit writes it, where there is no such folder.
void parse_model_path(
    const YamlValue& value,
    const fs::path& folder,
    RecipeModel& model) {
  model.model = value.path(folder);
  const std::string text = model.model.string();
  const size_t plus = text.rfind('+');
  std::error_code ignored;
  if (plus != std::string::npos && !fs::exists(model.model, ignored)) {
    const std::string adapter =
        value.text().substr(value.text().rfind('+') + 1);
    model.model = text.substr(0, plus);
    model.adapter = (folder / adapter).lexically_normal();
  }
}

// `layers`: the entry is a source of a slice.
RecipeModel parse_model(
    const YamlValue& entry,
    const MethodInfo& method,
    const fs::path& folder,
    bool layers) {
  std::vector<std::string_view> keys = {
      "model", "adapter", "fisher", "gram", "num_examples", "parameters"};
  if (layers) {
    keys.push_back("layer_range");
  }
  entry.expect_keys(keys);
  RecipeModel model;
  parse_model_path(entry.at("model"), folder, model);
  if (const auto adapter = entry.find("adapter")) {
    model.adapter = adapter->path(folder);
  }
  if (const auto fisher = entry.find("fisher")) {
    model.fisher = fisher->path(folder);
  } else if (method.needs_fishers) {
    entry.fail(fmt::format(
        "{} needs the key fisher: the method {} uses a Fisher of every model",
        entry.name(),
        method.name));
  }
  if (const auto gram = entry.find("gram")) {
    model.gram = gram->path(folder);
  } else if (method.needs_grams()) {
    entry.fail(fmt::format(
        "{} needs the key gram: the method {} uses the Gram matrices of every "
        "model",
        entry.name(),
        method.name));
  }
  if (const auto count = entry.find("num_examples")) {
    model.num_examples = count->positive();
  }
  if (const auto parameters = entry.find("parameters")) {
    model.parameters =
        parse_settings(*parameters, method, ParameterInfo::Scope::kModel);
  }
  if (layers) {
    const YamlValue range = entry.at("layer_range");
    const auto ends = range.items();
    if (ends.size() != 2) {
      range.fail(fmt::format(
          "{} must be two numbers, the first layer and the one behind the last",
          range.name()));
    }
    constexpr int64_t kMost = 100'000;
    model.first_layer = static_cast<int>(ends[0].integer(0, kMost));
    model.last_layer =
        static_cast<int>(ends[1].integer(model.first_layer + 1, kMost));
  }
  return model;
}

std::vector<RecipeModel> parse_models(
    const YamlValue& list,
    const MethodInfo& method,
    const fs::path& folder,
    bool layers) {
  std::vector<RecipeModel> models;
  for (const YamlValue& entry : list.items()) {
    models.push_back(parse_model(entry, method, folder, layers));
  }
  return models;
}

RecipeSlice parse_slice(
    const YamlValue& entry,
    const MethodInfo& method,
    const fs::path& folder) {
  entry.expect_keys({"sources", "parameters"});
  const YamlValue sources = entry.at("sources");
  RecipeSlice slice;
  slice.models = parse_models(sources, method, folder, /*layers=*/true);
  const auto count = [](const RecipeModel& model) {
    return model.last_layer - model.first_layer;
  };
  for (const RecipeModel& model : slice.models) {
    if (count(model) != count(slice.models.front())) {
      sources.fail(fmt::format(
          "{} must have equally many layers of each model", sources.name()));
    }
  }
  if (const auto parameters = entry.find("parameters")) {
    slice.parameters =
        parse_settings(*parameters, method, ParameterInfo::Scope::kMerge);
  }
  return slice;
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
  if (const auto gram = root.find("base_gram")) {
    recipe.base_gram = gram->path(folder);
  } else if (method.needs_base_gram()) {
    root.at("merge_method")
        .fail(fmt::format("the method {} needs base_gram", method.name));
  }
  if (const auto count = root.find("base_num_examples")) {
    recipe.base_num_examples = count->positive();
  }
  if (const auto tokenizer = root.find("tokenizer_source")) {
    if (tokenizer->text() != "base") {
      tokenizer->fail(fmt::format(
          "tokenizer_source must be base, not '{}': vocabularies are not "
          "merged",
          tokenizer->text()));
    }
  }
}

// Methods that take the base as `base_model` do not take it once more as a
// model, as in mergekit, whose recipes often list it in both places.
void leave_out_base(std::vector<RecipeModel>& models, const Recipe& recipe) {
  if (recipe.method->needs_base) {
    std::erase_if(models, [&](const RecipeModel& model) {
      return model.model == *recipe.base_model && !model.adapter;
    });
  }
}

// The complaint gets the list's place.
void check_count_of(
    const YamlValue& list,
    const MethodInfo& method,
    const std::vector<RecipeModel>& models) {
  try {
    check_count(method, static_cast<int>(models.size()));
  } catch (const InputError& error) {
    list.fail(error.what());
  }
}

// What can be said of the weights without the tensors; the plan looks at those
// that depend on them.
void check_weights(const YamlValue& models, const Recipe& recipe) {
  if (recipe.method->find_parameter("weight") == nullptr) {
    return;
  }
  std::vector<double> weights;
  for (const RecipeModel& model : recipe.models) {
    const Setting* setting =
        find_setting("weight", {&model.parameters, &recipe.parameters});
    if (setting != nullptr && !setting->is_constant()) {
      return;
    }
    weights.push_back(
        setting == nullptr ? recipe.method->fallback("weight")
                           : *setting->at("", 0));
  }
  const Setting* normalize = find_setting("normalize", {&recipe.parameters});
  const bool divides = normalize != nullptr && normalize->is_constant()
      ? *normalize->at("", 0) != 0
      : recipe.method->fallback("normalize") != 0;
  if (vanish(*recipe.method, weights, divides)) {
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
       "base_gram",
       "base_num_examples",
       "models",
       "slices",
       "parameters",
       "heads",
       "dtype",
       "out_dtype",
       "tokenizer_source"});
  Recipe recipe;
  recipe.source = source_name;
  recipe.text = yaml;

  recipe.method = &parse_method(root.at("merge_method"));
  const MethodInfo& method = *recipe.method;
  parse_recipe_options(root, recipe);
  parse_base(root, method, folder, recipe);
  const auto slices = root.find("slices");
  if (slices && root.find("models")) {
    slices->fail("there are models too, and a recipe has either or");
  }
  if (slices) {
    for (const YamlValue& entry : slices->items()) {
      RecipeSlice slice = parse_slice(entry, method, folder);
      slice.base_first_layer = slice.models.front().first_layer;
      for (const RecipeModel& model : slice.models) {
        if (model.model == recipe.base_model) {
          slice.base_first_layer = model.first_layer;
        }
      }
      leave_out_base(slice.models, recipe);
      check_count_of(entry, method, slice.models);
      recipe.slices.push_back(std::move(slice));
    }
    if (recipe.heads != HeadMode::kMerge) {
      root.at("heads").fail("slices have no heads of their own");
    }
  } else {
    const YamlValue models = root.at("models");
    recipe.models = parse_models(models, method, folder, /*layers=*/false);
    leave_out_base(recipe.models, recipe);
    check_count_of(models, method, recipe.models);
    check_weights(models, recipe);
  }
  return recipe;
}

} // namespace merganser
